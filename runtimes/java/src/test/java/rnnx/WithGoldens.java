package rnnx;

import java.lang.annotation.ElementType;
import java.lang.annotation.Retention;
import java.lang.annotation.RetentionPolicy;
import java.lang.annotation.Target;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.condition.EnabledIf;

/** Tests that run the models in parity_tests/golden, which a copy of this folder alone has not. */
@Target({ElementType.TYPE, ElementType.METHOD})
@Retention(RetentionPolicy.RUNTIME)
@EnabledIf(
        value = "rnnx.WithGoldens$Folder#isThere",
        disabledReason = "needs rnnx's repository: the models in its parity_tests/golden")
public @interface WithGoldens {
    /** Where tests run, as pom.xml says. */
    final class Folder {
        private Folder() {}

        static boolean isThere() {
            return Files.exists(Path.of("gru.onnx"));
        }
    }
}
