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
package io.stopover.trino;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.URI;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

/**
 * A TCP proxy in front of a daemon that resets, stalls or slows connections at random, and that can
 * stop listening for a while.
 */
final class FaultyProxy
        implements AutoCloseable
{
    private enum Fate
    {
        RESET_AT_ONCE, RESET_REQUEST, RESET_RESPONSE, STALL, SLOW, INTACT
    }

    private static final double FAULT_RATE = 0.1;
    private static final long STALL_MILLIS = 1_000;

    private final int upstream;
    private final int port;
    private final Random random;
    private final Set<Socket> sockets = ConcurrentHashMap.newKeySet();
    private volatile ServerSocket server;
    private volatile boolean faulty = true;
    private volatile boolean closed;

    FaultyProxy(int upstream, long seed)
            throws IOException
    {
        this.upstream = upstream;
        this.random = new Random(seed);
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

    URI uri()
    {
        return URI.create("http://127.0.0.1:" + port);
    }

    int port()
    {
        return port;
    }

    /** Forwards everything unchanged from now on. */
    void heal()
    {
        faulty = false;
    }

    /** Refuses connections and resets the open ones for a while, as a daemon that restarts. */
    void restart(long millis)
            throws Exception
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

    private synchronized Fate fate()
    {
        return faulty && random.nextDouble() < FAULT_RATE
                ? Fate.values()[random.nextInt(Fate.values().length - 1)]
                : Fate.INTACT;
    }

    private synchronized int limit()
    {
        return random.nextInt(100_000);
    }

    private void serve(Socket client)
    {
        Fate fate = fate();
        try (client; Socket daemon = new Socket(InetAddress.getLoopbackAddress(), upstream)) {
            sockets.add(daemon);
            if (fate == Fate.RESET_AT_ONCE) {
                reset(client);
                return;
            }
            if (fate == Fate.STALL) {
                Thread.sleep(STALL_MILLIS);
                return;
            }
            Thread responses = Thread.startVirtualThread(() -> copy(
                    daemon, client, fate == Fate.RESET_RESPONSE ? limit() : -1, fate == Fate.SLOW));
            copy(client, daemon, fate == Fate.RESET_REQUEST ? limit() : -1, fate == Fate.SLOW);
            responses.join();
            sockets.remove(daemon);
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

    /** @param limit resets both connections after so many bytes; -1 for never */
    private static void copy(Socket from, Socket to, int limit, boolean slow)
    {
        byte[] buffer = new byte[16 * 1024];
        int copied = 0;
        try {
            InputStream in = from.getInputStream();
            OutputStream out = to.getOutputStream();
            while (true) {
                int count = in.read(buffer);
                if (count < 0) {
                    to.shutdownOutput();
                    return;
                }
                if (slow) {
                    Thread.sleep(5);
                }
                out.write(buffer, 0, count);
                copied += count;
                if (limit >= 0 && copied >= limit) {
                    reset(from);
                    reset(to);
                    return;
                }
            }
        }
        catch (IOException e) {
            reset(from);
            reset(to);
        }
        catch (InterruptedException e) {
            Thread.currentThread().interrupt();
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
}
