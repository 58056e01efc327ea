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
package io.stopover.trino.client;

import com.sun.net.httpserver.HttpServer;
import io.airlift.units.Duration;
import io.stopover.trino.StopoverConfig;
import io.stopover.trino.StopoverTlsConfig;
import io.stopover.trino.client.HttpTransport.Limits;
import org.apache.hc.client5.http.classic.methods.HttpGet;
import org.apache.hc.client5.http.classic.methods.HttpPost;
import org.apache.hc.core5.http.ContentType;
import org.apache.hc.core5.http.io.entity.AbstractHttpEntity;
import org.apache.hc.core5.http.io.entity.StringEntity;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.ConnectException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.NoRouteToHostException;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.URI;
import java.net.UnknownHostException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.FutureTask;
import java.util.stream.Stream;

import static java.nio.charset.StandardCharsets.UTF_8;
import static java.util.concurrent.TimeUnit.MILLISECONDS;
import static java.util.concurrent.TimeUnit.SECONDS;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.catchThrowableOfType;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

/** One request against servers that misbehave below HTTP. */
@Timeout(60)
class TestHttpTransport
{
    private static final Duration CONNECT_TIMEOUT = new Duration(500, MILLISECONDS);
    /** Far more than the limits of these tests, and far less than the system's defaults. */
    private static final long BOUND_NANOS = SECONDS.toNanos(5);
    /** How a daemon begins a response. */
    private static final String OK = "HTTP/1.1 200 OK\r\nStopover-Run: run\r\n";
    private static final Limits SHORT = new Limits(
            new Duration(500, MILLISECONDS),
            Optional.of(new Duration(500, MILLISECONDS)),
            "stopover.request-timeout");
    private static final Limits LONG = new Limits(
            new Duration(30, SECONDS), Optional.empty(), "stopover.read-timeout");

    private final List<HttpTransport> transports = new ArrayList<>();
    private final List<AutoCloseable> resources = new ArrayList<>();

    @AfterEach
    void close()
            throws Exception
    {
        for (HttpTransport transport : transports) {
            await(() -> Optional.of(transport.connectionStats().getLeased())
                    .filter(leased -> leased == 0));
            transport.close();
        }
        for (AutoCloseable resource : resources.reversed()) {
            resource.close();
        }
    }

    private HttpTransport transport(DaemonSockets.Lookup lookup)
    {
        StopoverConfig config = new StopoverConfig().setConnectTimeout(CONNECT_TIMEOUT);
        HttpTransport transport =
                new HttpTransport(config, new StopoverTlsConfig(), new Token(config), lookup);
        transports.add(transport);
        return transport;
    }

    private HttpTransport transport()
    {
        return transport(InetAddress::getAllByName);
    }

    private ServerSocket server(int backlog)
            throws IOException
    {
        ServerSocket server = new ServerSocket(0, backlog, InetAddress.getLoopbackAddress());
        resources.add(server);
        return server;
    }

    private interface Connection
    {
        void serve(Socket socket)
                throws Exception;
    }

    /** Accepts connections and serves each on its own thread. */
    private int serve(Connection connection)
            throws IOException
    {
        ServerSocket server = server(50);
        Thread.startVirtualThread(() -> {
            while (true) {
                try {
                    Socket socket = server.accept();
                    resources.add(socket);
                    Thread.startVirtualThread(() -> {
                        try {
                            connection.serve(socket);
                        }
                        catch (Exception e) {
                            // the client closed the connection
                        }
                    });
                }
                catch (IOException e) {
                    return;
                }
            }
        });
        return server.getLocalPort();
    }

    private static Daemon http(int port)
    {
        return Daemon.of(URI.create("http://127.0.0.1:" + port));
    }

    private static void get(HttpTransport transport, Daemon daemon, Limits limits)
            throws IOException
    {
        transport.execute(
                daemon, () -> new HttpGet(daemon.url("/v1/exchanges/exchange")), limits,
                new Cancellation(), response -> response.getEntity().getContent().readAllBytes());
    }

    private static FailureKind kindOf(HttpTransport transport, Daemon daemon, Limits limits)
    {
        long start = System.nanoTime();
        RequestFailedException failure = catchThrowableOfType(
                RequestFailedException.class, () -> get(transport, daemon, limits));
        assertThat(System.nanoTime() - start).isLessThan(BOUND_NANOS);
        return failure.kind();
    }

    /** The classic client ignores the setting: a vanished machine was noticed after 119 minutes. */
    @Test
    void testKernelShowsTheKeepaliveTimer()
            throws Exception
    {
        assumeTrue(Files.exists(Path.of("/proc/net/tcp")), "Linux only");
        CountDownLatch accepted = new CountDownLatch(1);
        int port = serve(socket -> {
            socket.getInputStream().read(new byte[4096]);
            accepted.countDown();
            Thread.sleep(60_000);
        });
        HttpTransport transport = transport();
        Cancellation cancellation = new Cancellation();
        FutureTask<Void> request = new FutureTask<>(() -> transport.execute(
                http(port), () -> new HttpGet(http(port) + "/"), LONG, cancellation, _ -> null));
        Thread.startVirtualThread(request);
        assertThat(accepted.await(10, SECONDS)).isTrue();
        // columns: 2 remote address, 5 timer:expiry in hundredths of a second; timer 2 is keepalive
        String remote = ":%04X".formatted(port);
        String timer = await(() -> sockets().map(line -> line.strip().split("\\s+"))
                .filter(columns -> columns[2].endsWith(remote) && columns[5].startsWith("02:"))
                .map(columns -> columns[5])
                .findFirst());
        assertThat(Long.parseLong(timer.substring(3), 16))
                .isLessThanOrEqualTo(DaemonSockets.KEEPALIVE_IDLE_SECONDS * 100);
        cancellation.cancel();
        assertThatThrownBy(request::get).hasCauseInstanceOf(CancelledException.class);
    }

    private static Stream<String> sockets()
    {
        return Stream.of("/proc/net/tcp", "/proc/net/tcp6").flatMap(file -> {
            try {
                return Files.readAllLines(Path.of(file)).stream().skip(1);
            }
            catch (IOException e) {
                return Stream.empty();
            }
        });
    }

    private interface Check<T>
    {
        Optional<T> get();
    }

    private static <T> T await(Check<T> check)
            throws InterruptedException
    {
        long deadline = System.nanoTime() + SECONDS.toNanos(10);
        while (true) {
            Optional<T> value = check.get();
            if (value.isPresent()) {
                return value.get();
            }
            assertThat(System.nanoTime()).isLessThan(deadline);
            Thread.sleep(10);
        }
    }

    /** It took 180 s, whatever stopover.connect-timeout was. */
    @Test
    void testTlsHandshakeWithASilentPeerEndsWithinTheConnectTimeout()
            throws Exception
    {
        int port = serve(_ -> Thread.sleep(60_000));
        Daemon daemon = Daemon.of(URI.create("https://127.0.0.1:" + port));
        assertThat(kindOf(transport(), daemon, LONG)).isEqualTo(FailureKind.UNREACHABLE);
    }

    @Test
    void testTlsHandshakeWithASlowPeerEndsWithinTheConnectTimeout()
            throws Exception
    {
        int port = serve(socket -> {
            OutputStream out = socket.getOutputStream();
            // a handshake record of 16 KiB, one byte at a time
            out.write(new byte[] {0x16, 3, 3, 0x40, 0});
            while (true) {
                out.write(0);
                out.flush();
                Thread.sleep(100);
            }
        });
        Daemon daemon = Daemon.of(URI.create("https://127.0.0.1:" + port));
        assertThat(kindOf(transport(), daemon, LONG)).isEqualTo(FailureKind.UNREACHABLE);
    }

    @Test
    void testPeerThatClosesTheTlsHandshakeSaysNothingAboutTrust()
            throws Exception
    {
        int port = serve(Socket::close);
        Daemon daemon = Daemon.of(URI.create("https://127.0.0.1:" + port));
        assertThat(kindOf(transport(), daemon, LONG)).isEqualTo(FailureKind.UNREACHABLE);
    }

    @Test
    void testDnsLookupEndsWithinTheConnectTimeoutAndIsShared()
            throws Exception
    {
        CountDownLatch never = new CountDownLatch(1);
        HttpTransport transport = transport(host -> {
            awaitUninterruptibly(never);
            throw new UnknownHostException(host);
        });
        try (ExecutorService executor = Executors.newVirtualThreadPerTaskExecutor()) {
            List<Future<FailureKind>> kinds = new ArrayList<>();
            for (int i = 0; i < 20; i++) {
                Daemon hung = Daemon.of(URI.create("http://hung.test:7077"));
                kinds.add(executor.submit(() -> kindOf(transport, hung, LONG)));
            }
            for (Future<FailureKind> kind : kinds) {
                assertThat(kind.get()).isEqualTo(FailureKind.UNREACHABLE);
            }
        }
        assertThat(Thread.getAllStackTraces().keySet())
                .filteredOn(thread -> thread.getName().equals("stopover-dns-hung.test"))
                .hasSize(1);
        never.countDown();
    }

    private static void awaitUninterruptibly(CountDownLatch latch)
    {
        try {
            latch.await();
        }
        catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    @Test
    void testDnsFailureIsNotARefusedConnection()
    {
        HttpTransport transport = transport(host -> {
            throw new UnknownHostException(host);
        });
        assertThat(kindOf(transport, Daemon.of(URI.create("http://unknown.test:7077")), LONG))
                .isEqualTo(FailureKind.UNREACHABLE);
    }

    @Test
    void testConnectTimeoutIsNotARefusedConnection()
            throws Exception
    {
        ServerSocket server = server(1);
        // the kernel drops connections beyond the backlog of a socket that does not accept
        for (int i = 0; i < 4; i++) {
            Socket socket = new Socket();
            resources.add(socket);
            try {
                socket.connect(server.getLocalSocketAddress(), 200);
            }
            catch (IOException e) {
                break;
            }
        }
        assertThat(kindOf(transport(), http(server.getLocalPort()), LONG))
                .isEqualTo(FailureKind.UNREACHABLE);
    }

    @Test
    void testOnlyRefusedConnectionsAreRefused()
            throws Exception
    {
        int port;
        try (ServerSocket server = server(1)) {
            port = server.getLocalPort();
        }
        assertThat(kindOf(transport(), http(port), LONG)).isEqualTo(FailureKind.REFUSED);
        assertThat(translated(new NoRouteToHostException("No route to host")))
                .isEqualTo(FailureKind.UNREACHABLE);
        assertThat(translated(new ConnectException("Network is unreachable")))
                .isEqualTo(FailureKind.UNREACHABLE);
    }

    private static FailureKind translated(IOException failure)
    {
        return FailureKind.of(HttpTransport.translate(
                TestFailureKind.REQUEST, failure, Optional.empty()));
    }

    @Test
    void testRequestWithoutResponseEndsWithinItsLimit()
            throws Exception
    {
        int port = serve(_ -> Thread.sleep(60_000));
        assertThat(kindOf(transport(), http(port), SHORT)).isEqualTo(FailureKind.TIMED_OUT);
        Limits idle = new Limits(new Duration(500, MILLISECONDS), Optional.empty(), "");
        assertThat(kindOf(transport(), http(port), idle)).isEqualTo(FailureKind.TIMED_OUT);
    }

    @Test
    void testResponseThatTricklesEndsWithinTheTotalLimit()
            throws Exception
    {
        int port = serve(socket -> {
            socket.getInputStream().read(new byte[4096]);
            OutputStream out = socket.getOutputStream();
            out.write((OK + "Content-Length: 100000\r\n\r\n").getBytes(UTF_8));
            while (true) {
                out.write('x');
                out.flush();
                Thread.sleep(50);
            }
        });
        assertThat(kindOf(transport(), http(port), SHORT)).isEqualTo(FailureKind.TIMED_OUT);
    }

    /** Without a limit for the request body, a peer that reads nothing blocked it for ever. */
    @Test
    void testRequestBodyThatThePeerDoesNotReadEndsWithinTheIdleLimit()
            throws Exception
    {
        int port = serve(_ -> Thread.sleep(60_000));
        HttpTransport transport = transport();
        Limits idle = new Limits(new Duration(500, MILLISECONDS), Optional.empty(), "");
        long start = System.nanoTime();
        assertThatThrownBy(() -> transport.execute(
                http(port),
                () -> {
                    HttpPost post = new HttpPost(http(port) + "/v1/exchanges/exchange/handles");
                    post.setEntity(new StringEntity("x".repeat(32 << 20)));
                    return post;
                },
                idle, new Cancellation(), _ -> null))
                .isInstanceOfSatisfying(RequestFailedException.class, e ->
                        assertThat(e.kind()).isEqualTo(FailureKind.TIMED_OUT));
        assertThat(System.nanoTime() - start).isLessThan(BOUND_NANOS);
    }

    @Test
    void testTruncatedAndResetResponsesAreDisconnects()
            throws Exception
    {
        int truncated = serve(socket -> {
            socket.getInputStream().read(new byte[4096]);
            socket.getOutputStream().write(
                    (OK + "Content-Length: 100\r\n\r\nhalf").getBytes(UTF_8));
            socket.close();
        });
        assertThat(kindOf(transport(), http(truncated), LONG)).isEqualTo(FailureKind.DISCONNECTED);
        int reset = serve(socket -> {
            socket.getInputStream().read(new byte[4096]);
            socket.setSoLinger(true, 0);
            socket.close();
        });
        assertThat(kindOf(transport(), http(reset), LONG)).isEqualTo(FailureKind.DISCONNECTED);
        int noise = serve(socket -> {
            socket.getInputStream().read(new byte[4096]);
            socket.getOutputStream().write("SSH-2.0-OpenSSH\r\n\r\n".repeat(1000).getBytes(UTF_8));
            socket.close();
        });
        assertThat(kindOf(transport(), http(noise), LONG)).isEqualTo(FailureKind.DISCONNECTED);
    }

    /** A proxy that answered 200 to the removal of an exchange left its files for a lease. */
    @Test
    void testSuccessThatNoDaemonReportsIsADisconnect()
            throws Exception
    {
        int port = serve(socket -> {
            socket.getInputStream().read(new byte[4096]);
            socket.getOutputStream().write(
                    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".getBytes(UTF_8));
            socket.close();
        });
        assertThatThrownBy(() -> transport().execute(
                http(port),
                () -> new HttpGet(http(port).url("/v1/daemon")),
                LONG,
                new Cancellation(),
                _ -> null))
                .hasMessageContaining("does not come from a Stopover daemon")
                .isInstanceOfSatisfying(ProblemException.class, e ->
                        assertThat(FailureKind.of(e)).isEqualTo(FailureKind.DISCONNECTED));
    }

    /** The HTTP client closes its pool at the first Error: every later request would fail. */
    @Test
    void testErrorInARequestDoesNotBreakTheOthers()
            throws Exception
    {
        HttpServer server = HttpServer.create(
                new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        server.createContext("/", exchange -> {
            exchange.getResponseHeaders().set("Stopover-Run", "run");
            exchange.sendResponseHeaders(204, -1);
            exchange.close();
        });
        server.start();
        resources.add(() -> server.stop(0));
        Daemon daemon = http(server.getAddress().getPort());
        HttpTransport transport = transport();
        for (int i = 0; i < 3; i++) {
            assertThatThrownBy(() -> transport.execute(
                    daemon,
                    () -> {
                        HttpPost post = new HttpPost(daemon.url("/"));
                        post.setEntity(new FailingEntity());
                        return post;
                    },
                    LONG, new Cancellation(), _ -> null))
                    .isInstanceOf(OutOfMemoryError.class);
            transport.execute(
                    daemon,
                    () -> new HttpGet(daemon.url("/")),
                    LONG,
                    new Cancellation(),
                    _ -> null);
        }
    }

    private static final class FailingEntity
            extends AbstractHttpEntity
    {
        private FailingEntity()
        {
            super(ContentType.TEXT_PLAIN, null);
        }

        @Override
        public InputStream getContent()
        {
            return InputStream.nullInputStream();
        }

        @Override
        public void writeTo(OutputStream out)
        {
            throw new OutOfMemoryError("Cannot reserve direct buffer memory");
        }

        @Override
        public boolean isStreaming()
        {
            return false;
        }

        @Override
        public long getContentLength()
        {
            return 10;
        }

        @Override
        public void close() {}
    }

    @Test
    void testFailureNamesTheRequestTheNodeAndTheWayOut()
            throws Exception
    {
        StringBuilder head = new StringBuilder();
        int port = serve(socket -> {
            byte[] request = new byte[4096];
            head.append(new String(request, 0, socket.getInputStream().read(request), UTF_8));
            Thread.sleep(60_000);
        });
        HttpTransport transport = transport();
        RequestFailedException failure = catchThrowableOfType(
                RequestFailedException.class, () -> get(transport, http(port), SHORT));
        assertThat(failure)
                .hasMessageMatching("GET http://127.0.0.1:%s/v1/exchanges/exchange failed: "
                        .formatted(port)
                        // the limit of the request and that of its socket end at once
                        + "no response in time: (waited 500.00ms|Read timed out) "
                        + "\\(request [0-9a-f]{16} from node .+\\); check the daemon's log and "
                        + "http://127.0.0.1:%s/readyz, or raise stopover.request-timeout"
                        .formatted(port))
                .hasMessageContaining(NodeName.get());
        String id = failure.getMessage().replaceFirst(".*\\(request ([0-9a-f]{16}).*", "$1");
        assertThat(head.toString()).contains("X-Request-Id: " + id);
    }

    @Test
    void testRequestAfterShutdownIsCancelled()
            throws Exception
    {
        int port = serve(_ -> Thread.sleep(60_000));
        HttpTransport transport = transport();
        transport.close();
        assertThatThrownBy(() -> get(transport, http(port), LONG))
                .isInstanceOf(CancelledException.class);
    }
}
