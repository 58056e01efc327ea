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

import io.airlift.units.Duration;
import jdk.net.ExtendedSocketOptions;
import org.apache.hc.client5.http.DnsResolver;
import org.apache.hc.client5.http.SchemePortResolver;
import org.apache.hc.client5.http.impl.io.DefaultHttpClientConnectionOperator;
import org.apache.hc.client5.http.impl.io.PoolingHttpClientConnectionManagerBuilder;
import org.apache.hc.client5.http.io.DetachedSocketFactory;
import org.apache.hc.client5.http.io.HttpClientConnectionOperator;
import org.apache.hc.client5.http.ssl.TlsSocketStrategy;
import org.apache.hc.core5.http.URIScheme;
import org.apache.hc.core5.http.config.RegistryBuilder;
import org.apache.hc.core5.http.protocol.HttpContext;

import javax.net.ssl.SSLSocket;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.Proxy;
import java.net.Socket;
import java.net.SocketOption;
import java.net.SocketTimeoutException;
import java.net.UnknownHostException;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicBoolean;

import static java.util.Objects.requireNonNull;
import static java.util.concurrent.TimeUnit.MILLISECONDS;

/**
 * Connections with bounds that the HTTP client lacks: DNS lookups and TLS handshakes end within the
 * connect timeout, and TCP keepalive detects a vanished machine within a minute instead of two
 * hours.
 */
final class DaemonSockets
{
    /** Seconds without traffic before the first keepalive probe. */
    static final int KEEPALIVE_IDLE_SECONDS = 30;
    private static final Map<SocketOption<Integer>, Integer> KEEPALIVE = Map.of(
            ExtendedSocketOptions.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS,
            ExtendedSocketOptions.TCP_KEEPINTERVAL, 10,
            ExtendedSocketOptions.TCP_KEEPCOUNT, 3);

    interface Lookup
    {
        InetAddress[] resolve(String host)
                throws UnknownHostException;
    }

    private DaemonSockets() {}

    static PoolingHttpClientConnectionManagerBuilder connections(DnsResolver dns)
    {
        Builder builder = new Builder();
        builder.setDnsResolver(dns);
        return builder;
    }

    private static final class Builder
            extends PoolingHttpClientConnectionManagerBuilder
    {
        @Override
        protected HttpClientConnectionOperator createConnectionOperator(
                SchemePortResolver ports, DnsResolver dns, TlsSocketStrategy tls)
        {
            DetachedSocketFactory sockets = DaemonSockets::create;
            return new DefaultHttpClientConnectionOperator(
                    sockets,
                    ports,
                    dns,
                    RegistryBuilder.<TlsSocketStrategy>create()
                            .register(URIScheme.HTTPS.id, tls)
                            .build());
        }
    }

    private static Socket create(Proxy socksProxy)
            throws IOException
    {
        Socket socket = socksProxy == null ? new Socket() : new Socket(socksProxy);
        for (Map.Entry<SocketOption<Integer>, Integer> option : KEEPALIVE.entrySet()) {
            if (socket.supportedOptions().contains(option.getKey())) {
                socket.setOption(option.getKey(), option.getValue());
            }
        }
        return socket;
    }

    /** Bounds the whole handshake, which the client bounds only read by read. */
    static TlsSocketStrategy boundedHandshake(
            TlsSocketStrategy strategy, Duration timeout, ScheduledExecutorService timer)
    {
        return (socket, target, port, attachment, context) ->
                handshake(strategy, timeout, timer, socket, target, port, attachment, context);
    }

    private static SSLSocket handshake(
            TlsSocketStrategy strategy,
            Duration timeout,
            ScheduledExecutorService timer,
            Socket socket,
            String target,
            int port,
            Object attachment,
            HttpContext context)
            throws IOException
    {
        AtomicBoolean late = new AtomicBoolean();
        ScheduledFuture<?> watchdog = timer.schedule(
                () -> {
                    late.set(true);
                    closeUnchecked(socket);
                },
                timeout.toMillis(),
                MILLISECONDS);
        try {
            return strategy.upgrade(socket, target, port, attachment, context);
        }
        catch (IOException e) {
            if (!late.get()) {
                throw e;
            }
            SocketTimeoutException exception = new SocketTimeoutException(
                    "no TLS handshake within stopover.connect-timeout (%s)".formatted(timeout));
            exception.initCause(e);
            throw exception;
        }
        finally {
            watchdog.cancel(false);
        }
    }

    private static void closeUnchecked(Socket socket)
    {
        try {
            socket.close();
        }
        catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /**
     * Resolves host names on separate platform threads, one lookup per name at a time: a lookup
     * can be neither interrupted nor bounded, and would pin the carrier of a virtual thread.
     */
    static final class BoundedDns
            implements DnsResolver
    {
        private final Lookup lookup;
        private final Duration timeout;
        private final Map<String, CompletableFuture<InetAddress[]>> running =
                new ConcurrentHashMap<>();

        BoundedDns(Lookup lookup, Duration timeout)
        {
            this.lookup = requireNonNull(lookup, "lookup is null");
            this.timeout = requireNonNull(timeout, "timeout is null");
        }

        @Override
        public InetAddress[] resolve(String host)
                throws UnknownHostException
        {
            try {
                return running.computeIfAbsent(host, this::start)
                        .get(timeout.toMillis(), MILLISECONDS);
            }
            catch (TimeoutException e) {
                throw unknown(host, "no answer from DNS within stopover.connect-timeout (%s)"
                        .formatted(timeout), e);
            }
            catch (ExecutionException e) {
                throw unknown(host, e.getCause().getMessage(), e.getCause());
            }
            catch (InterruptedException e) {
                Thread.currentThread().interrupt();
                throw unknown(host, "interrupted", e);
            }
        }

        private CompletableFuture<InetAddress[]> start(String host)
        {
            CompletableFuture<InetAddress[]> result = new CompletableFuture<>();
            Thread.ofPlatform().daemon().name("stopover-dns-" + host).start(() -> {
                try {
                    result.complete(lookup.resolve(host));
                }
                catch (Throwable t) {
                    result.completeExceptionally(t);
                }
                finally {
                    running.remove(host, result);
                }
            });
            return result;
        }

        private static UnknownHostException unknown(String host, String reason, Throwable cause)
        {
            UnknownHostException exception =
                    new UnknownHostException("cannot resolve %s: %s".formatted(host, reason));
            exception.initCause(cause);
            return exception;
        }

        @Override
        public String resolveCanonicalHostname(String host)
        {
            return host;
        }
    }
}
