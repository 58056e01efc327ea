package io.stopover.trino.testing;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;

/** A real Stopover daemon on a free loopback port. */
public final class DaemonProcess
        implements AutoCloseable
{
    private static final String READY = "listening on ";

    private final ServerProcess process;
    private final URI uri;

    /** @param configuration TOML */
    public DaemonProcess(Path folder, String name, String configuration)
    {
        try {
            Files.createDirectories(folder);
            Path config = Files.writeString(folder.resolve(name + ".toml"), configuration);
            process = new ServerProcess(
                    List.of(Binaries.daemon()
                            .toString(), "serve", "--config", config.toString(), "--listen",
                            "127.0.0.1:0"),
                    Map.of(),
                    folder.resolve(name + ".log"));
        }
        catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        uri = URI.create(
                process.awaitLine(line -> line.startsWith(READY)).substring(READY.length())
                .strip());
    }

    public URI uri()
    {
        return uri;
    }

    /** As kill -9. */
    public void kill()
    {
        process.kill();
    }

    @Override
    public void close()
    {
        process.close();
    }
}
