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

import io.airlift.slice.Slices;
import io.airlift.units.Duration;
import io.stopover.trino.FakeDaemon;
import io.stopover.trino.StopoverConfig;
import io.stopover.trino.StopoverTlsConfig;
import io.stopover.trino.wire.PageBatch;
import io.stopover.trino.wire.SinkPage;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import java.net.InetAddress;
import java.net.UnknownHostException;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;

import static io.stopover.trino.FakeDaemon.loseResponse;
import static io.stopover.trino.FakeDaemon.problem;
import static java.util.concurrent.TimeUnit.MILLISECONDS;
import static java.util.concurrent.TimeUnit.SECONDS;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

/** Writes an attempt to a daemon whose host name DNS may fail to resolve. */
@Timeout(60)
class TestSinkWriter
{
    private static final DescribedExchange EXCHANGE =
            new DescribedExchange("exchange", Optional.empty());
    private static final SinkId SINK = new SinkId(EXCHANGE, 0, 0);

    private final FakeDaemon.Store store = new FakeDaemon.Store();
    private final FakeDaemon daemon = new FakeDaemon(store);
    private final AtomicBoolean dnsWorks = new AtomicBoolean(true);
    private final AtomicInteger lookups = new AtomicInteger();
    private final StopoverConfig config = new StopoverConfig()
            .setUris("http://daemon.test:" + daemon.port())
            .setWriteTimeout(new Duration(5, SECONDS));
    private final HttpTransport transport =
            new HttpTransport(config, new StopoverTlsConfig(), new Token(config), this::resolve);
    private final DaemonClient client = new DaemonClient(transport, config);
    private final Daemons daemons = new Daemons(config);
    private final DaemonFailover failover =
            new DaemonFailover(daemons, new DaemonProbe(transport, config), new FailureLog());
    private final SinkWriter writer = writer(3_000);

    private InetAddress[] resolve(String host)
            throws UnknownHostException
    {
        lookups.incrementAndGet();
        if (!dnsWorks.get()) {
            throw new UnknownHostException(host);
        }
        return new InetAddress[] {InetAddress.getLoopbackAddress()};
    }

    private SinkWriter writer(int retryMillis)
    {
        Backoff.Delays delays =
                new Backoff.Delays(new Duration(5, MILLISECONDS), new Duration(20, MILLISECONDS));
        return new SinkWriter(
                client,
                failover,
                new Fleet(config, new DaemonProbe(transport, config), daemons),
                SINK,
                Optional.empty(),
                () -> new Backoff(
                        delays, new Duration(retryMillis, MILLISECONDS), System::nanoTime),
                new Cancellation());
    }

    @BeforeEach
    void announce()
            throws Exception
    {
        client.announce(daemons.preferred(), "exchange", 1, false, new Cancellation());
    }

    @AfterEach
    void close()
    {
        assertThat(transport.connectionStats().getLeased()).isZero();
        transport.close();
        daemon.close();
    }

    private static PageBatch batch()
    {
        return new PageBatch(List.of(SinkPage.of(0, Slices.utf8Slice("page"))));
    }

    /** Every connection is closed after its response, so that each request needs a lookup. */
    private void withoutDns(int millis)
            throws Exception
    {
        daemon.onNext("batch=1", loseResponse());
        dnsWorks.set(false);
        Thread.startVirtualThread(() -> {
            try {
                MILLISECONDS.sleep(millis);
            }
            catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            }
            dnsWorks.set(true);
        });
    }

    /** Two seconds without DNS failed the attempt within half a second: "its daemon is gone". */
    @Test
    void testAttemptSurvivesTwoSecondsWithoutDns()
            throws Exception
    {
        writer.send(batch());
        withoutDns(2_000);
        writer.send(batch());
        writer.finish();
        assertThat(lookups.get()).isGreaterThan(5);
        assertThat(writer.retries()).isGreaterThan(5);
        assertThat(store.pages("exchange", 0, 0)).hasSize(2);
    }

    @Test
    void testAttemptWhoseDaemonRefusesConnectionsFailsSoon()
            throws Exception
    {
        writer.send(batch());
        daemon.close();
        long start = System.nanoTime();
        assertThatThrownBy(() -> writer.send(batch())).isInstanceOf(DaemonGoneException.class)
                .hasMessageContaining("no longer runs")
                .hasMessageContaining("attempt 0 of task 0")
                .hasMessageContaining("connection refused");
        assertThat(System.nanoTime() - start).isLessThan(SECONDS.toNanos(2));
    }

    @Test
    void testTokenRotationDoesNotFailAnOpenSink()
            throws Exception
    {
        writer.send(batch());
        daemon.onNext("batch=1", 5, problem("unauthorized", 401, false));
        writer.send(batch());
        writer.finish();
        assertThat(store.pages("exchange", 0, 0)).hasSize(2);
    }

    @Test
    void testTokenThatIsRejectedFromTheStartFailsAtOnce()
    {
        daemon.onNext("batch=0", problem("unauthorized", 401, false));
        assertThatThrownBy(() -> writer(3_600_000).send(batch()))
                .isInstanceOf(ProblemException.class)
                .hasMessageContaining("stopover.token");
        assertThat(daemon.requests("batch=0")).hasSize(1);
    }

    @Test
    void testDeclaredSinkReportsADaemonThatFails()
            throws Exception
    {
        daemon.onNext("PUT .*/sinks/", problem("draining", 503, true));
        writer.declareSink();
        assertThat(daemons.rotation().in()).isEmpty();
        writer.send(batch());
        assertThat(daemons.rotation().in()).hasSize(1);
    }
}
