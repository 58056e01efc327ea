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
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ThreadLocalRandom;

/**
 * A Stopover daemon process, on loopback unless told otherwise, whose port survives restarts. The
 * port is below the ephemeral range, so no outgoing connection can occupy it between restarts.
 */
public final class DaemonProcess
        implements AutoCloseable
{
    private static final String READY = "listening on ";
    private static final int LOWEST_PORT = 10_240;
    private static final int HIGHEST_PORT = 30_240;

    private final Path folder;
    private final String name;
    private final Path config;
    private final String host;
    private final int port;
    private int starts;
    private ServerProcess process;

    /** @param configuration TOML */
    public DaemonProcess(Path folder, String name, String configuration)
    {
        this(folder, name, "127.0.0.1", configuration);
    }

    /**
     * @param host the address to listen on
     * @param configuration TOML, in which {@code $PORT} stands for the port
     */
    public DaemonProcess(Path folder, String name, String host, String configuration)
    {
        this.folder = folder;
        this.name = name;
        this.host = host;
        this.port = freePort();
        try {
            Files.createDirectories(folder);
            config = Files.writeString(
                    folder.resolve(name + ".toml"),
                    configuration.replace("$PORT", Integer.toString(port)));
        }
        catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        start();
    }

    /**
     * Restarts the daemon after {@link #kill} or {@link #awaitExit}; returns when it accepts
     * requests.
     */
    public void start()
    {
        starts++;
        process = new ServerProcess(
                List.of(Binaries.daemon()
                        .toString(), "serve", "--config", config.toString(), "--listen",
                        host + ":" + port),
                Map.of(),
                folder.resolve("%s-%s.log".formatted(name, starts)));
        process.awaitLine(line -> line.startsWith(READY));
    }

    private int freePort()
    {
        ThreadLocalRandom random = ThreadLocalRandom.current();
        for (int i = 0; i < 1000; i++) {
            int port = random.nextInt(LOWEST_PORT, HIGHEST_PORT);
            try (ServerSocket _ = new ServerSocket(port, 1, InetAddress.getByName(host))) {
                return port;
            }
            catch (IOException e) {
                // in use
            }
        }
        throw new IllegalStateException("no free port");
    }

    public URI uri()
    {
        return URI.create("http://127.0.0.1:" + port);
    }

    public int port()
    {
        return port;
    }

    public long pid()
    {
        return process.pid();
    }

    /** URI of the daemon if its configuration contains a certificate. */
    public URI tlsUri()
    {
        return URI.create("https://127.0.0.1:" + port);
    }

    /** The value of a metric without labels, from {@code /metrics}. */
    public long metric(String metric)
            throws IOException, InterruptedException
    {
        HttpRequest request = HttpRequest.newBuilder(uri().resolve("/metrics")).build();
        try (HttpClient client = HttpClient.newHttpClient()) {
            // The whole body: a client with one that was read in part does not close.
            return client.send(request, HttpResponse.BodyHandlers.ofString()).body().lines()
                    .filter(line -> line.startsWith(metric + " "))
                    .mapToLong(line -> (long) Double.parseDouble(line.split(" ")[1]))
                    .findFirst().orElseThrow();
        }
    }

    /** Sends SIGKILL. */
    public void kill()
    {
        process.kill();
    }

    /** Sends SIGTERM and returns: the daemon rejects new sinks, completes open ones, and exits. */
    public void terminate()
    {
        process.terminate();
    }

    /** Waits for the daemon to exit by itself and returns its exit code. */
    public int awaitExit()
    {
        return process.awaitExit();
    }

    @Override
    public void close()
    {
        process.close();
    }
}
