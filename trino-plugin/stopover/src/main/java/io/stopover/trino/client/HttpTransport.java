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
import org.apache.hc.client5.http.impl.io.PoolingHttpClientConnectionManagerBuilder;
import org.apache.hc.core5.http.ClassicHttpResponse;
import org.apache.hc.core5.http.HttpEntity;
import org.apache.hc.core5.http.config.Http1Config;
import org.apache.hc.core5.http.impl.io.HttpRequestExecutor;
import org.apache.hc.core5.http.io.SocketConfig;
import org.apache.hc.core5.io.CloseMode;
import org.apache.hc.core5.util.TimeValue;
import org.apache.hc.core5.util.Timeout;

import javax.net.ssl.SSLHandshakeException;
import javax.net.ssl.SSLPeerUnverifiedException;

import java.io.IOException;
import java.io.InterruptedIOException;
import java.net.NoRouteToHostException;
import java.net.URI;
import java.net.UnknownHostException;
import java.util.Optional;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.atomic.AtomicBoolean;

import static io.airlift.concurrent.Threads.daemonThreadsNamed;
import static java.util.Objects.requireNonNull;
import static java.util.concurrent.TimeUnit.MILLISECONDS;

/**
 * One HTTP request to one daemon, from start to end, on the calling (virtual) thread: token,
 * deadline, cancellation, and failures sorted into "nothing was sent", "no answer" and "the answer
 * is an error". Does not repeat anything, but for a token that was exchanged.
 *
 * <p>Connections are not limited in number: a source that nobody reads holds one, and whoever it
 * waits for must not have to wait for that connection. Their number is bounded by open sinks (two
 * for each while its daemon is told of it) and by the read concurrency of open sources.
 */
public final class HttpTransport
{
    private static final int BUFFER_SIZE = 64 * 1024;
    private static final int MAX_PROBLEM_SIZE = 1024 * 1024;
    private static final Http1Config HTTP1 = Http1Config.custom()
            .setBufferSize(BUFFER_SIZE)
            .setWaitForContinueTimeout(Timeout.ofSeconds(30))
            .build();

    public interface AnswerReader<T>
    {
        T read(ClassicHttpResponse response)
                throws IOException;
    }

    /** Makes the request anew for each try: a request object serves once. */
    public interface RequestFactory
    {
        HttpUriRequestBase create();
    }

    /**
     * @param idleTimeout how long the daemon may be silent
     * @param deadline how long all of it may take
     */
    public record Limits(Duration idleTimeout, Optional<Duration> deadline) {}

    private final CloseableHttpClient http;
    private final Token token;
    private final ScheduledThreadPoolExecutor watchdogs;
    private volatile boolean closed;

    @Inject
    public HttpTransport(StopoverConfig config, StopoverTlsConfig tls, Token token)
    {
        this.token = requireNonNull(token, "token is null");
        this.watchdogs =
                new ScheduledThreadPoolExecutor(1, daemonThreadsNamed("stopover-watchdog-%s"));
        this.watchdogs.setRemoveOnCancelPolicy(true);
        this.http = HttpClients.custom()
                .setConnectionManager(connections(config, tls))
                .setRequestExecutor(new HttpRequestExecutor(HTTP1, null, null))
                .setUserAgent("trino-stopover")
                .evictExpiredConnections()
                .evictIdleConnections(TimeValue.ofSeconds(30))
                .disableAutomaticRetries()
                .disableRedirectHandling()
                .disableAuthCaching()
                .disableCookieManagement()
                .disableContentCompression()
                .build();
    }

    private static PoolingHttpClientConnectionManager connections(
            StopoverConfig config, StopoverTlsConfig tls)
    {
        return PoolingHttpClientConnectionManagerBuilder.create()
                .setConnectionFactory(
                        ManagedHttpClientConnectionFactory.builder().http1Config(HTTP1).build())
                .setTlsSocketStrategy(new ReloadingTlsSockets(tls))
                .setDefaultConnectionConfig(ConnectionConfig.custom()
                        .setConnectTimeout(timeout(config.getConnectTimeout()))
                        .setValidateAfterInactivity(TimeValue.ofSeconds(1))
                        .build())
                .setDefaultSocketConfig(SocketConfig.custom()
                        .setTcpNoDelay(true)
                        .setSoKeepAlive(true)
                        .setTcpKeepIdle(30)
                        .setTcpKeepInterval(10)
                        .setTcpKeepCount(3)
                        .build())
                .setMaxConnTotal(Integer.MAX_VALUE)
                .setMaxConnPerRoute(Integer.MAX_VALUE)
                .build();
    }

    public <T> T execute(
            URI daemon,
            RequestFactory requests,
            Limits limits,
            Cancellation cancellation,
            AnswerReader<T> reader)
            throws IOException
    {
        Optional<String> used = token.value();
        try {
            return executeOnce(daemon, requests.create(), used, limits, cancellation, reader);
        }
        catch (ProblemException e) {
            if (e.problem().is("unauthorized", "forbidden") && token.refused(used)) {
                return executeOnce(
                        daemon, requests.create(), token.value(), limits, cancellation, reader);
            }
            throw e;
        }
    }

    private <T> T executeOnce(
            URI daemon,
            HttpUriRequestBase request,
            Optional<String> bearer,
            Limits limits,
            Cancellation cancellation,
            AnswerReader<T> reader)
            throws IOException
    {
        bearer.ifPresent(value -> request.setHeader("Authorization", "Bearer " + value));
        W3CTraceContextPropagator.getInstance()
                .inject(Context.current(), request, HttpUriRequestBase::setHeader);
        request.setConfig(RequestConfig.custom()
                .setResponseTimeout(timeout(limits.idleTimeout()))
                .setExpectContinueEnabled(request.getEntity() instanceof PageBatchEntity)
                .build());
        AtomicBoolean late = new AtomicBoolean();
        cancellation.attach(request);
        Optional<ScheduledFuture<?>> watchdog = limits.deadline()
                .map(deadline -> watchdogs.schedule(
                () -> {
                    late.set(true);
                    request.cancel();
                },
                deadline.toMillis(),
                MILLISECONDS));
        try {
            return http.execute(request, response -> answer(daemon, response, reader));
        }
        catch (HttpHostConnectException
                | ConnectTimeoutException
                | UnknownHostException
                | NoRouteToHostException e) {
            throw cancellation.isCancelled()
                    ? new CancelledException()
                    : new DaemonUnreachableException(daemon, e);
        }
        catch (IOException | RuntimeException e) {
            // a request that is cancelled in the midst may fail in any way
            if (closed || cancellation.isCancelled()) {
                throw new CancelledException();
            }
            if (late.get()) {
                throw timeout(daemon, request, limits, e);
            }
            if (e instanceof SSLHandshakeException || e instanceof SSLPeerUnverifiedException) {
                throw new DaemonNotTrustedException(daemon, e);
            }
            throw e;
        }
        finally {
            watchdog.ifPresent(task -> task.cancel(false));
            cancellation.detach();
        }
    }

    private static <T> T answer(URI daemon, ClassicHttpResponse response, AnswerReader<T> reader)
            throws IOException
    {
        if (response.getCode() / 100 != 2) {
            HttpEntity entity = response.getEntity();
            byte[] body = entity == null
                    ? new byte[0]
                    : entity.getContent().readNBytes(MAX_PROBLEM_SIZE);
            throw new ProblemException(daemon, Problem.parse(response.getCode(), body));
        }
        return reader.read(response);
    }

    private static IOException timeout(
            URI daemon, HttpUriRequestBase request, Limits limits, Exception cause)
    {
        IOException timeout = new InterruptedIOException("%s: no answer to %s %s within %s".formatted(
                daemon,
                request.getMethod(),
                request.getPath(),
                limits.deadline().orElseThrow()));
        timeout.initCause(cause);
        return timeout;
    }

    private static Timeout timeout(Duration duration)
    {
        return Timeout.ofMilliseconds(duration.toMillis());
    }

    @PreDestroy
    public void close()
    {
        closed = true;
        watchdogs.shutdownNow();
        http.close(CloseMode.IMMEDIATE);
    }
}
