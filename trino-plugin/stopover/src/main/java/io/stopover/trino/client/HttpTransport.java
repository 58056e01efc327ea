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

import com.google.inject.Inject;
import io.airlift.units.Duration;
import io.opentelemetry.api.trace.propagation.W3CTraceContextPropagator;
import io.opentelemetry.context.Context;
import io.stopover.trino.StopoverConfig;
import io.stopover.trino.StopoverTlsConfig;
import io.stopover.trino.wire.MalformedStreamException;
import jakarta.annotation.PreDestroy;
import org.apache.hc.client5.http.ConnectTimeoutException;
import org.apache.hc.client5.http.HttpHostConnectException;
import org.apache.hc.client5.http.classic.methods.HttpUriRequestBase;
import org.apache.hc.client5.http.config.ConnectionConfig;
import org.apache.hc.client5.http.config.RequestConfig;
import org.apache.hc.client5.http.impl.classic.CloseableHttpClient;
import org.apache.hc.client5.http.impl.classic.HttpClients;
import org.apache.hc.client5.http.impl.io.ManagedHttpClientConnectionFactory;
import org.apache.hc.client5.http.impl.io.PoolingHttpClientConnectionManager;
import org.apache.hc.core5.http.ClassicHttpResponse;
import org.apache.hc.core5.http.Header;
import org.apache.hc.core5.http.HttpEntity;
import org.apache.hc.core5.http.config.Http1Config;
import org.apache.hc.core5.http.impl.io.HttpRequestExecutor;
import org.apache.hc.core5.http.io.SocketConfig;
import org.apache.hc.core5.io.CloseMode;
import org.apache.hc.core5.pool.PoolStats;
import org.apache.hc.core5.util.TimeValue;
import org.apache.hc.core5.util.Timeout;

import javax.net.ssl.SSLHandshakeException;
import javax.net.ssl.SSLPeerUnverifiedException;

import java.io.EOFException;
import java.io.IOException;
import java.net.ConnectException;
import java.net.InetAddress;
import java.net.NoRouteToHostException;
import java.net.SocketTimeoutException;
import java.net.UnknownHostException;
import java.util.Optional;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.ThreadLocalRandom;

import static io.airlift.concurrent.Threads.daemonThreadsNamed;
import static java.util.Objects.requireNonNull;
import static java.util.concurrent.TimeUnit.MILLISECONDS;

/**
 * One HTTP request to one daemon on the calling (virtual) thread: token, time limits, cancellation,
 * and the classification of failures. Repeats nothing, except after the token file has changed.
 *
 * <p>The number of connections is not limited: an idle source holds one, and the source that it
 * waits for must not wait for that connection. Open sinks (two connections each while the sink is
 * declared) and the read concurrency of open sources bound the number.
 */
public final class HttpTransport
{
    private static final int BUFFER_SIZE = 64 * 1024;
    private static final String PROTOCOL_HEADER = "Stopover-Protocol";
    private static final String RUN_HEADER = "Stopover-Run";
    private static final int MAX_PROBLEM_SIZE = 1024 * 1024;
    private static final Http1Config HTTP1 = Http1Config.custom()
            .setBufferSize(BUFFER_SIZE)
            .setWaitForContinueTimeout(Timeout.ofSeconds(30))
            .build();

    public interface ResponseReader<T>
    {
        T read(ClassicHttpResponse response)
                throws IOException;
    }

    /** Creates the request for each attempt: a request object can be sent only once. */
    public interface RequestFactory
    {
        HttpUriRequestBase create();
    }

    /**
     * @param idle longest time without a byte from the daemon
     * @param total longest duration of the whole request; if empty, only the response head must
     *         arrive within the idle and connect timeouts
     * @param property the configuration property behind these limits
     */
    public record Limits(Duration idle, Optional<Duration> total, String property) {}

    private final CloseableHttpClient http;
    private final PoolingHttpClientConnectionManager connections;
    private final DaemonSockets.BoundedDns dns;
    private final Token token;
    private final String node;
    private final Duration connectTimeout;
    private final ScheduledThreadPoolExecutor timer;
    private final Runs runs = new Runs();
    private volatile boolean closed;

    @Inject
    public HttpTransport(StopoverConfig config, StopoverTlsConfig tls, Token token)
    {
        this(config, tls, token, InetAddress::getAllByName);
    }

    HttpTransport(
            StopoverConfig config, StopoverTlsConfig tls, Token token, DaemonSockets.Lookup dns)
    {
        this.token = requireNonNull(token, "token is null");
        this.node = NodeName.get();
        this.connectTimeout = config.getConnectTimeout();
        this.timer = new ScheduledThreadPoolExecutor(1, daemonThreadsNamed("stopover-timer-%s"));
        this.timer.setRemoveOnCancelPolicy(true);
        this.dns = new DaemonSockets.BoundedDns(dns, connectTimeout);
        this.connections = connections(tls);
        this.http = HttpClients.custom()
                .setConnectionManager(new SharedConnections(connections))
                .setRequestExecutor(new HttpRequestExecutor(HTTP1, null, null))
                .setUserAgent("trino-stopover/" + PluginVersion.get())
                .evictExpiredConnections()
                .evictIdleConnections(TimeValue.ofSeconds(30))
                .disableAutomaticRetries()
                .disableRedirectHandling()
                .disableAuthCaching()
                .disableCookieManagement()
                .disableContentCompression()
                .build();
    }

    private PoolingHttpClientConnectionManager connections(StopoverTlsConfig tls)
    {
        return DaemonSockets.connections(dns)
                .setConnectionFactory(
                        ManagedHttpClientConnectionFactory.builder().http1Config(HTTP1).build())
                .setTlsSocketStrategy(DaemonSockets.boundedHandshake(
                        new ReloadingTlsSockets(tls), connectTimeout, timer))
                .setDefaultConnectionConfig(ConnectionConfig.custom()
                        .setConnectTimeout(timeout(connectTimeout))
                        .setValidateAfterInactivity(TimeValue.ofSeconds(1))
                        .build())
                .setDefaultSocketConfig(SocketConfig.custom()
                        .setTcpNoDelay(true)
                        .setSoKeepAlive(true)
                        .build())
                .setMaxConnTotal(Integer.MAX_VALUE)
                .setMaxConnPerRoute(Integer.MAX_VALUE)
                .build();
    }

    /**
     * Sends a request and reads its response.
     *
     * @throws CancelledException if cancelled, or after {@link #close}
     * @throws ProblemException if the daemon answers with an error
     * @throws DaemonNotTrustedException if the TLS handshake fails for lack of trust
     * @throws RequestFailedException if there is no complete response
     * @throws MalformedStreamException if the response violates the protocol
     */
    public <T> T execute(
            Daemon daemon,
            RequestFactory requests,
            Limits limits,
            Cancellation cancellation,
            ResponseReader<T> reader)
            throws IOException
    {
        Optional<String> used = token.value();
        try {
            return executeOnce(daemon, requests.create(), used, limits, cancellation, reader);
        }
        catch (ProblemException e) {
            if (e.problem().is("unauthorized", "forbidden") && token.reloadAfterRefusal(used)) {
                return executeOnce(
                        daemon, requests.create(), token.value(), limits, cancellation, reader);
            }
            throw e;
        }
    }

    private <T> T executeOnce(
            Daemon daemon,
            HttpUriRequestBase request,
            Optional<String> bearer,
            Limits limits,
            Cancellation cancellation,
            ResponseReader<T> reader)
            throws IOException
    {
        RequestInfo info = describe(daemon, request, limits);
        bearer.ifPresent(value -> request.setHeader("Authorization", "Bearer " + value));
        request.setHeader("X-Request-Id", info.id());
        request.setHeader(PROTOCOL_HEADER, Integer.toString(Fleet.PROTOCOL));
        W3CTraceContextPropagator.getInstance()
                .inject(Context.current(), request, HttpUriRequestBase::setHeader);
        request.setConfig(RequestConfig.custom()
                .setResponseTimeout(timeout(limits.idle()))
                .setExpectContinueEnabled(request.getEntity() instanceof PageBatchEntity)
                .build());
        cancellation.attach(request);
        Watchdog watchdog = new Watchdog(request, limits);
        try {
            watchdog.start();
            return http.execute(daemon.target(), request, response -> {
                if (limits.total().isEmpty()) {
                    watchdog.stop();
                }
                Header run = response.getFirstHeader(RUN_HEADER);
                if (run != null) {
                    runs.observe(daemon, run.getValue());
                }
                return read(info, response, reader);
            });
        }
        catch (IOException | RuntimeException e) {
            // a cancelled request may fail with any exception
            if (closed || cancellation.isCancelled()) {
                throw new CancelledException();
            }
            if (e instanceof RuntimeException unexpected && watchdog.expired().isEmpty()) {
                throw unexpected;
            }
            throw translate(info, e, watchdog.expired());
        }
        catch (Error e) {
            // the client leaves the connection leased
            request.cancel();
            throw e;
        }
        finally {
            watchdog.stop();
            cancellation.detach();
        }
    }

    private RequestInfo describe(Daemon daemon, HttpUriRequestBase request, Limits limits)
    {
        return new RequestInfo(
                daemon,
                request.getMethod(),
                request.getPath(),
                "%016x".formatted(ThreadLocalRandom.current().nextLong()),
                node,
                limits.property());
    }

    private static <T> T read(
            RequestInfo info, ClassicHttpResponse response, ResponseReader<T> reader)
            throws IOException
    {
        if (response.getCode() / 100 != 2) {
            HttpEntity entity = response.getEntity();
            byte[] body = entity == null
                    ? new byte[0]
                    : entity.getContent().readNBytes(MAX_PROBLEM_SIZE);
            throw new ProblemException(info, Problem.parse(response.getCode(), body));
        }
        if (!response.containsHeader(RUN_HEADER)) {
            // a proxy or another server, which has executed nothing
            throw new ProblemException(info, Problem.ofStranger(response.getCode(), true));
        }
        try {
            return reader.read(response);
        }
        catch (StreamProblemException e) {
            throw new ProblemException(info, e.problem());
        }
        catch (MalformedStreamException e) {
            throw new MalformedStreamException(info.failure(e.getMessage(), ""), e);
        }
    }

    static IOException translate(
            RequestInfo info, Exception failure, Optional<Duration> expired)
    {
        if (expired.isPresent()) {
            SocketTimeoutException timeout =
                    new SocketTimeoutException("waited %s".formatted(expired.get()));
            timeout.initCause(failure);
            return new RequestFailedException(info, FailureKind.TIMED_OUT, timeout);
        }
        return switch (failure) {
            case IOException e when e instanceof NotRetryable -> e;
            case ProblemException e -> e;
            case MalformedStreamException e -> e;
            case HttpHostConnectException e when e.getMessage().contains("Connection refused") ->
                    new RequestFailedException(info, FailureKind.REFUSED, e);
            case ConnectException e ->
                    new RequestFailedException(info, FailureKind.UNREACHABLE, e);
            case ConnectTimeoutException e ->
                    new RequestFailedException(info, FailureKind.UNREACHABLE, e);
            case UnknownHostException e ->
                    new RequestFailedException(info, FailureKind.UNREACHABLE, e);
            case NoRouteToHostException e ->
                    new RequestFailedException(info, FailureKind.UNREACHABLE, e);
            case SocketTimeoutException e ->
                    new RequestFailedException(info, FailureKind.TIMED_OUT, e);
            case SSLPeerUnverifiedException e -> new DaemonNotTrustedException(info, e);
            // EOF without a cause: the peer closed the connection, which does not mean distrust
            case SSLHandshakeException e when !(e.getCause() instanceof EOFException) ->
                    new DaemonNotTrustedException(info, e);
            case SSLHandshakeException e ->
                    new RequestFailedException(info, FailureKind.UNREACHABLE, e);
            default -> new RequestFailedException(info, FailureKind.DISCONNECTED, failure);
        };
    }

    /** Cancels a request that takes too long. */
    private final class Watchdog
    {
        private final Duration limit;
        private final HttpUriRequestBase request;
        private volatile boolean expired;
        private volatile Optional<ScheduledFuture<?>> task = Optional.empty();

        private Watchdog(HttpUriRequestBase request, Limits limits)
        {
            this.request = request;
            this.limit = limits.total().orElseGet(() -> new Duration(
                    limits.idle().toMillis() + connectTimeout.toMillis(), MILLISECONDS)
                    .convertToMostSuccinctTimeUnit());
        }

        private void start()
        {
            task = Optional.of(timer.schedule(this::expire, limit.toMillis(), MILLISECONDS));
        }

        private void expire()
        {
            expired = true;
            // closing a socket may block, and the timer serves all requests
            Thread.ofVirtual().name("stopover-timeout").start(request::cancel);
        }

        /** The limit, if it has expired. */
        private Optional<Duration> expired()
        {
            return expired ? Optional.of(limit) : Optional.empty();
        }

        private void stop()
        {
            task.ifPresent(scheduled -> scheduled.cancel(false));
        }
    }

    private static Timeout timeout(Duration duration)
    {
        return Timeout.ofMilliseconds(duration.toMillis());
    }

    /** Resolves a host name within the connect timeout. */
    InetAddress[] resolve(String host)
            throws UnknownHostException
    {
        return dns.resolve(host);
    }

    /** The run of the daemon that answered last; empty before its first response. */
    Optional<String> run(Daemon daemon)
    {
        return runs.current(daemon);
    }

    /** Statistics of the connection pool. */
    PoolStats connectionStats()
    {
        return connections.getTotalStats();
    }

    @PreDestroy
    public void close()
    {
        closed = true;
        timer.shutdownNow();
        http.close(CloseMode.IMMEDIATE);
        connections.close(CloseMode.IMMEDIATE);
    }
}
