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
import java.net.Socket;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;

import static java.util.concurrent.TimeUnit.SECONDS;

/** An S3 server on a free loopback port, with its buckets in a local directory. */
public final class S3Server
        implements AutoCloseable
{
    public static final String ACCESS_KEY = "stopover-test";
    public static final String SECRET_KEY = "stopover-test-secret";
    public static final String REGION = "us-east-1";

    private final ServerProcess process;
    private final Path buckets;
    private final Path accessLog;
    private final URI endpoint;

    public S3Server(Path folder)
    {
        int port;
        try {
            buckets = Files.createDirectories(folder.resolve("buckets"));
            accessLog = folder.resolve("s3-access.log");
            try (ServerSocket socket = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
                port = socket.getLocalPort();
            }
        }
        catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        endpoint = URI.create("http://127.0.0.1:" + port);
        process = new ServerProcess(
                List.of(Binaries.s3Server().toString(),
                        "--access", ACCESS_KEY, "--secret", SECRET_KEY, "--region", REGION,
                        "--port", "127.0.0.1:"
                                + port, "--quiet", "--keep-alive", "--health", "/health",
                        "--access-log", accessLog.toString(),
                        "posix", buckets.toString()),
                Map.of(),
                folder.resolve("s3.log"));
        awaitPort(port);
    }

    private void awaitPort(int port)
    {
        long deadline = System.nanoTime() + SECONDS.toNanos(60);
        while (true) {
            try (Socket _ = new Socket(InetAddress.getLoopbackAddress(), port)) {
                return;
            }
            catch (IOException e) {
                process.checkAlive();
                if (System.nanoTime() > deadline) {
                    process.close();
                    throw new UncheckedIOException(
                            "the S3 server is not listening on port " + port, e);
                }
                ServerProcess.pause();
            }
        }
    }

    public URI endpoint()
    {
        return endpoint;
    }

    public long pid()
    {
        return process.pid();
    }

    /** One line per request. */
    public Path accessLog()
    {
        return accessLog;
    }

    /** Creates a bucket and returns the directory that contains its objects. */
    public Path createBucket(String name)
    {
        try {
            return Files.createDirectories(buckets.resolve(name));
        }
        catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    @Override
    public void close()
    {
        process.close();
    }
}
