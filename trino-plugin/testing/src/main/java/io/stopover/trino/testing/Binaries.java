/*
 * Licensed under the Apache License, Version 2.0 (the "License");
 * you may not use this file except in compliance with the License.
 * You may obtain a copy of the License at
 *
 *     http://www.apache.org/licenses/LICENSE-2.0
 *
 * Unless required by applicable law or agreed to in writing, software
 * distributed under the License is distributed on an "AS IS" BASIS,
 * WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
 * See the License for the specific language governing permissions and
 * limitations under the License.
 */
package io.stopover.trino.testing;

import java.nio.file.Files;
import java.nio.file.Path;

/**
 * Locates the programs that tests start, from environment variables or system properties of the
 * same name.
 */
final class Binaries
{
    private Binaries() {}

    static Path daemon()
    {
        return find("STOPOVER_BINARY",
                "the stopover daemon, such as target/release/stopover after"
                        + " 'cargo build --release'");
    }

    static Path s3Server()
    {
        return find("STOPOVER_TEST_VERSITYGW", "the versitygw S3 server");
    }

    static Path slowStore()
    {
        return find("STOPOVER_BENCH_SLOW_STORE",
                "the proxy slow-store, such as target/release/examples/slow-store after"
                        + " 'cargo build --release --example slow-store'");
    }

    private static Path find(String variable, String what)
    {
        String value = System.getProperty(variable, System.getenv(variable));
        if (value == null || value.isBlank()) {
            throw new IllegalStateException(
                    "%s is not set: set it to the path of %s".formatted(variable, what));
        }
        Path path = Path.of(value).toAbsolutePath();
        if (!Files.isExecutable(path)) {
            throw new IllegalStateException(
                    "%s names %s, which is not an executable file: it must be the path of %s"
                    .formatted(variable, path, what));
        }
        return path;
    }
}
