/* Linux, macOS and what is like them. */
#define _XOPEN_SOURCE 700
#include "platform.h"

#include <dlfcn.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#ifdef __APPLE__
#include <xlocale.h>
#endif

bool rx_path_look(const char *path, rx_kind *kind, uint64_t *size)
{
    struct stat found;
    if (stat(path, &found) != 0)
        return false;
    *kind = S_ISREG(found.st_mode) ? RX_FILE : S_ISDIR(found.st_mode) ? RX_FOLDER : RX_OTHER;
    *size = (uint64_t)found.st_size;
    return true;
}

char *rx_path_real(const char *path)
{
    return realpath(path, NULL);
}

size_t rx_path_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) + 1 : 0;
}

FILE *rx_path_read(const char *path)
{
    return fopen(path, "rb");
}

void *rx_path_native(const char *path)
{
    return strdup(path);
}

void *rx_library_open(const char *path, char *problem, size_t size)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        snprintf(problem, size, "%s", dlerror());
    return library;
}

void *rx_library_symbol(void *library, const char *name)
{
    return dlsym(library, name);
}

void rx_environment_default(const char *name, const char *value)
{
    setenv(name, value, 0);
}

void *rx_aligned_take(size_t alignment, size_t size)
{
    return aligned_alloc(alignment, size);
}

void rx_aligned_free(void *taken)
{
    free(taken);
}

double rx_to_double(const char *text)
{
    locale_t plain = newlocale(LC_NUMERIC_MASK, "C", (locale_t)0);
    locale_t before = plain ? uselocale(plain) : (locale_t)0;
    double number = strtod(text, NULL);
    if (plain) {
        uselocale(before);
        freelocale(plain);
    }
    return number;
}
