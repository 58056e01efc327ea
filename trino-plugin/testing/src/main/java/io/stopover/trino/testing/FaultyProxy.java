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
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.URI;
import java.util.EnumMap;
import java.util.EnumSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicBoolean;

import static java.nio.charset.StandardCharsets.UTF_8;

/**
 * A TCP proxy in front of a daemon, with a fault for some requests at random, and that can stop
 * listening for a while. It does not parse HTTP: a request begins with the first bytes of a client
 * after bytes of the daemon.
 */
public final class FaultyProxy
        implements AutoCloseable
{
    /** What happens to a request. */
    public enum Fault
    {
        /** The connection is reset before anything is forwarded. */
        RESET_AT_ONCE,
        /** The connection is reset within the request. */
        RESET_REQUEST,
        /** The connection is reset within the response: half a body. */
        RESET_RESPONSE,
        /** Nothing is forwarded or answered. */
        SILENCE,
        /** Every piece is forwarded late. */
        SLOW,
        /** A retryable problem with status 503. */
        UNAVAILABLE,
        /** Status 502, of something that is not a daemon. */
        BAD_GATEWAY,
        /** Status 200, of something that is not a daemon. */
        NOISE,
        /** Status 401: the token is not accepted. */
        UNAUTHORIZED,
        /** Status 400: another version of the protocol. */
        UNSUPPORTED_PROTOCOL;

        /** Those that no daemon answers itself. */
        public static final Set<Fault> OF_CONNECTIONS =
                EnumSet.range(RESET_AT_ONCE, SLOW);
        /** Those after which the same request is worth another try at the same daemon. */
        public static final Set<Fault> TRANSIENT = EnumSet.range(RESET_AT_ONCE, NOISE);

        private String answer()
        {
            return switch (this) {
                case UNAVAILABLE -> problem("storage-unavailable", 503, true);
                case UNAUTHORIZED -> problem("unauthorized", 401, false);
                case UNSUPPORTED_PROTOCOL -> problem("unsupported-protocol", 400, false);
                case BAD_GATEWAY -> http(502, "text/html", "<html>no upstream</html>");
                case NOISE -> http(200, "text/html", "<html>not a daemon</html>");
                default -> throw new IllegalStateException(name());
            };
        }

        private static String problem(String slug, int status, boolean retryable)
        {
            return http(status, "application/problem+json", """
                    {"type": "urn:stopover:problem:%s", "title": "%s", "status": %s, \
                    "detail": "by the test", "retryable": %s}"""
                    .formatted(slug, slug, status, retryable));
        }

        private static String http(int status, String type, String body)
        {
            return """
                    HTTP/1.1 %s Test\r
                    Content-Type: %s\r
                    Content-Length: %s\r
                    Connection: close\r
                    \r
                    %s""".formatted(status, type, body.length(), body);
        }
    }

    private final int upstream;
    private final int port;
    private final Random random;
    private final double rate;
    private final List<Fault> faults;
    private final long silenceMillis;
    private final Map<Fault, Integer> played = new EnumMap<>(Fault.class);
    private final Set<Socket> sockets = ConcurrentHashMap.newKeySet();
    private volatile ServerSocket server;
    private volatile boolean faulty = true;
    private volatile boolean closed;

    /**
     * @param rate share of requests that meet a fault
     * @param silenceMillis how long a silent connection stays open
     */
    public FaultyProxy(
            int upstream, long seed, double rate, Set<Fault> faults, long silenceMillis)
            throws IOException
    {
        this.upstream = upstream;
        this.random = new Random(seed);
        this.rate = rate;
        this.faults = List.copyOf(faults);
        this.silenceMillis = silenceMillis;
        this.server = listen(0);
        this.port = server.getLocalPort();
        start();
    }

    private static ServerSocket listen(int port)
            throws IOException
    {
        ServerSocket server = new ServerSocket();
        server.setReuseAddress(true);
        server.bind(new InetSocketAddress(InetAddress.getLoopbackAddress(), port), 1000);
        return server;
    }

    private void start()
    {
        ServerSocket current = server;
        Thread.startVirtualThread(() -> {
            while (true) {
                try {
                    Socket client = current.accept();
                    sockets.add(client);
                    Thread.startVirtualThread(() -> serve(client));
                }
                catch (IOException e) {
                    return;
                }
            }
        });
    }

    public URI uri()
    {
        return URI.create("http://127.0.0.1:" + port);
    }

    public int port()
    {
        return port;
    }

    /** How often each fault was played. */
    public synchronized Map<Fault, Integer> played()
    {
        return Map.copyOf(played);
    }

    /** Forwards everything unchanged from now on. */
    public void heal()
    {
        faulty = false;
    }

    /** Refuses connections and resets the open ones for a while, as a daemon that restarts. */
    public void restart(long millis)
            throws InterruptedException, IOException
    {
        server.close();
        sockets.forEach(FaultyProxy::reset);
        Thread.sleep(millis);
        while (!closed) {
            try {
                server = listen(port);
                start();
                return;
            }
            catch (IOException e) {
                // an outgoing connection uses the port for a moment
                Thread.sleep(10);
            }
        }
    }

    /** Null for none. */
    private synchronized Fault next()
    {
        if (!faulty || random.nextDouble() >= rate) {
            return null;
        }
        Fault fault = faults.get(random.nextInt(faults.size()));
        played.merge(fault, 1, Integer::sum);
        return fault;
    }

    private synchronized int limit()
    {
        return random.nextInt(100_000);
    }

    private void serve(Socket client)
    {
        try (client; Socket daemon = new Socket(InetAddress.getLoopbackAddress(), upstream)) {
            sockets.add(daemon);
            try {
                new Connection(client, daemon).run();
            }
            finally {
                sockets.remove(daemon);
            }
        }
        catch (IOException e) {
            reset(client);
        }
        catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
        finally {
            sockets.remove(client);
        }
    }

    private static void reset(Socket socket)
    {
        try {
            socket.setSoLinger(true, 0);
            socket.close();
        }
        catch (IOException e) {
            // closed already
        }
    }

    @Override
    public void close()
            throws IOException
    {
        closed = true;
        server.close();
        sockets.forEach(FaultyProxy::reset);
    }

    /** One connection of a client, and the one to the daemon that belongs to it. */
    private final class Connection
    {
        private final Socket client;
        private final Socket daemon;
        /** The daemon sent bytes since the last request began. */
        private final AtomicBoolean answered = new AtomicBoolean(true);
        /** Bytes that are forwarded before both connections are reset; negative for no limit. */
        private long requestLimit = -1;
        private volatile long responseLimit = -1;
        private volatile boolean slow;

        private Connection(Socket client, Socket daemon)
        {
            this.client = client;
            this.daemon = daemon;
        }

        private void run()
                throws InterruptedException
        {
            Thread responses = Thread.startVirtualThread(this::forwardResponses);
            forwardRequests();
            responses.join();
        }

        private void forwardRequests()
        {
            byte[] buffer = new byte[16 * 1024];
            try {
                InputStream in = client.getInputStream();
                OutputStream out = daemon.getOutputStream();
                while (true) {
                    int count = in.read(buffer);
                    if (count < 0) {
                        daemon.shutdownOutput();
                        return;
                    }
                    if (answered.getAndSet(false) && !begin(next())) {
                        return;
                    }
                    pause();
                    out.write(buffer, 0, count);
                    if (requestLimit >= 0) {
                        requestLimit -= count;
                        if (requestLimit < 0) {
                            resetBoth();
                            return;
                        }
                    }
                }
            }
            catch (IOException e) {
                resetBoth();
            }
            catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            }
        }

        /** Returns whether the request is forwarded. */
        private boolean begin(Fault fault)
                throws IOException, InterruptedException
        {
            slow = fault == Fault.SLOW;
            switch (fault) {
                case null -> {}
                case SLOW -> {}
                case RESET_REQUEST -> requestLimit = limit();
                case RESET_RESPONSE -> responseLimit = limit();
                case RESET_AT_ONCE -> {
                    resetBoth();
                    return false;
                }
                case SILENCE -> {
                    Thread.sleep(silenceMillis);
                    resetBoth();
                    return false;
                }
                default -> {
                    client.getOutputStream().write(fault.answer().getBytes(UTF_8));
                    client.shutdownOutput();
                    drain();
                    resetBoth();
                    return false;
                }
            }
            return true;
        }

        /** Reads what the client still sends, so that it receives the answer. */
        private void drain()
                throws IOException
        {
            client.setSoTimeout(1_000);
            byte[] buffer = new byte[16 * 1024];
            int count = 0;
            while (count >= 0) {
                count = client.getInputStream().read(buffer);
            }
        }

        private void forwardResponses()
        {
            byte[] buffer = new byte[16 * 1024];
            try {
                InputStream in = daemon.getInputStream();
                OutputStream out = client.getOutputStream();
                while (true) {
                    int count = in.read(buffer);
                    if (count < 0) {
                        client.shutdownOutput();
                        return;
                    }
                    answered.set(true);
                    pause();
                    long limit = responseLimit;
                    if (limit >= 0 && count > limit) {
                        out.write(buffer, 0, (int) limit);
                        resetBoth();
                        return;
                    }
                    responseLimit = limit < 0 ? limit : limit - count;
                    out.write(buffer, 0, count);
                }
            }
            catch (IOException e) {
                resetBoth();
            }
            catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            }
        }

        private void pause()
                throws InterruptedException
        {
            if (slow) {
                Thread.sleep(5);
            }
        }

        private void resetBoth()
        {
            reset(client);
            reset(daemon);
        }
    }
}
