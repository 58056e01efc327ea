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

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.stream.Stream;

import static java.util.stream.Collectors.joining;

/**
 * Two daemons that share two base directories in a temporary directory or in buckets of an S3
 * server. {@link #close} stops every process and removes every file.
 */
public final class TestingStopover
        implements AutoCloseable
{
    public enum Storage
    {
        LOCAL, S3
    }

    private final Path folder;
    private final Optional<S3Server> s3;
    private final List<Path> data = new ArrayList<>();
    private final List<DaemonProcess> daemons = new ArrayList<>();

    public TestingStopover(Storage storage)
    {
        try {
            folder = Files.createTempDirectory("stopover-test");
        }
        catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        s3 = storage == Storage.S3 ? Optional.of(new S3Server(folder)) : Optional.empty();
        try {
            String configuration = "[memory]\nbudget = \"256MiB\"\n"
                    + Stream.of("one", "two").map(this::baseDirectory).collect(joining());
            daemons.add(new DaemonProcess(folder, "first", configuration));
            daemons.add(new DaemonProcess(folder, "second", configuration));
        }
        catch (RuntimeException e) {
            close();
            throw e;
        }
    }

    private String baseDirectory(String name)
    {
        if (s3.isEmpty()) {
            Path local = folder.resolve("base-" + name);
            data.add(local);
            return "\n[[base_directory]]\nname = \"%s\"\nuri = \"%s\"\n"
                    .formatted(name, local.toUri());
        }
        data.add(s3.get().createBucket("bucket-" + name));
        return """

                [[base_directory]]
                name = "%s"
                uri = "s3://bucket-%s/exchange"
                endpoint = "%s"
                region = "%s"
                access_key_id = "%s"
                secret_access_key = "%s"
                allow_http = true
                path_style = true
                """.formatted(
                name,
                name,
                s3.get().endpoint(),
                S3Server.REGION,
                S3Server.ACCESS_KEY,
                S3Server.SECRET_KEY);
    }

    public DaemonProcess first()
    {
        return daemons.get(0);
    }

    public DaemonProcess second()
    {
        return daemons.get(1);
    }

    /** Plugin properties that prefer the first daemon. */
    public Map<String, String> properties()
    {
        return Map.of("stopover.uris", first().uri() + "," + second().uri());
    }

    /**
     * Lists the files in the base directories whose path contains the text. With a query id, these
     * are the files stored for that query.
     */
    public List<Path> filesOf(String text)
    {
        List<Path> found = new ArrayList<>();
        for (Path directory : data) {
            found.addAll(filesOf(directory, text));
        }
        return found;
    }

    /** Lists the files of all exchanges, without those that belong to the base directories. */
    public List<Path> filesOfExchanges()
    {
        return Stream.of("/v2/markers/", "/v2/segments/")
                .flatMap(folder -> filesOf(folder).stream())
                .filter(file -> !file.endsWith(".keep"))
                .toList();
    }

    private static List<Path> filesOf(Path directory, String text)
    {
        while (true) {
            try (Stream<Path> files = Files.walk(directory)) {
                return files.filter(Files::isRegularFile)
                        .filter(file -> file.toString().contains(text)).toList();
            }
            catch (UncheckedIOException e) {
                // files were deleted during the walk: list again
                if (!(e.getCause() instanceof NoSuchFileException)) {
                    throw e;
                }
            }
            catch (IOException e) {
                throw new UncheckedIOException(e);
            }
        }
    }

    @Override
    public void close()
    {
        daemons.forEach(DaemonProcess::close);
        s3.ifPresent(S3Server::close);
        try (Stream<Path> files = Files.walk(folder)) {
            for (Path file : files.sorted(Comparator.reverseOrder()).toList()) {
                Files.deleteIfExists(file);
            }
        }
        catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }
}
