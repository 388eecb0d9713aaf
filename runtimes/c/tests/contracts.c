/* Reads a path from each line of its input, and says of that model "ok" or "error CODE": all that is looked
 * at before the engine. What scripts/fuzz feeds; an engine that is nowhere is how far it goes. */
#include <rnnx.h>

#include <stdio.h>
#include <string.h>

int main(void)
{
    const rnnx_options options = {.onnxruntime = "/nowhere"};
    char path[4096];
    while (fgets(path, sizeof path, stdin)) {
        rnnx_error error = {.code = ""};
        path[strcspn(path, "\n")] = 0;
        rnnx_session *session = rnnx_open(path, &options, &error);
        if (session || !strcmp(error.code, "onnxruntime-missing"))
            puts("ok");
        else
            printf("error %s\n", error.code);
        fflush(stdout);
        rnnx_close(session);
    }
    return 0;
}
