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

import io.airlift.units.Duration;
import io.opentelemetry.api.trace.Span;
import io.stopover.trino.client.Backoff;
import io.trino.spi.ErrorType;
import io.trino.spi.TrinoException;
import io.trino.spi.exchange.Exchange;
import io.trino.spi.exchange.ExchangeId;
import io.trino.spi.exchange.ExchangeManager;
import io.trino.spi.exchange.ExchangeSinkHandle;
import io.trino.spi.exchange.ExchangeSinkInstanceHandle;
import io.trino.spi.exchange.ExchangeSourceHandle;
import io.trino.spi.exchange.ExchangeSourceHandleSource;
import io.trino.spi.exchange.ExchangeSourceHandleSource.ExchangeSourceHandleBatch;
import io.trino.spi.metrics.Metrics;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import java.lang.ref.WeakReference;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.BooleanSupplier;
import java.util.function.Supplier;

import static io.stopover.trino.FakeDaemon.problem;
import static io.stopover.trino.Testing.EXCHANGE_ID;
import static io.stopover.trino.Testing.exchange;
import static io.stopover.trino.Testing.handles;
import static io.stopover.trino.Testing.manager;
import static io.stopover.trino.Testing.metric;
import static io.stopover.trino.Testing.readAll;
import static io.stopover.trino.Testing.source;
import static io.stopover.trino.Testing.write;
import static java.nio.charset.StandardCharsets.UTF_8;
import static java.util.concurrent.TimeUnit.MILLISECONDS;
import static java.util.concurrent.TimeUnit.SECONDS;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

/**
 * Guarantees to the coordinator: no method blocks, requests are retried, the first finished attempt
 * of each task is read, and every future completes.
 */
@Timeout(60)
class TestStopoverExchange
{
    private final FakeDaemon.Store store = new FakeDaemon.Store();
    private final FakeDaemon first = new FakeDaemon(store);
    private final FakeDaemon second = new FakeDaemon(store);
    private final ExchangeManager manager = manager(Map.of(), first, second);

    @AfterEach
    void stop()
    {
        manager.shutdown();
        first.close();
        second.close();
    }

    @Test
    void testExchangesOfOneQueryHaveDifferentNames()
            throws Exception
    {
        StopoverSinkInstanceHandle one = instantiate(exchange(manager, 5, false));
        StopoverSinkInstanceHandle other = instantiate(exchange(manager, 5, false));
        assertThat(one.exchange())
                .matches("20261123_000000_00000_abcde-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
                .isNotEqualTo(other.exchange());
        assertThat(store.exchanges).containsKeys(one.exchange(), other.exchange());
    }

    @Test
    void testExchangeIsAnnouncedToTheNextDaemonWhenTheFirstIsDown()
            throws Exception
    {
        first.close();
        instantiate(exchange(manager, 5, true));
        assertThat(second.requests("PUT")).hasSize(1);
    }

    @Test
    void testAnnounceIsRetriedWhileAllDaemonsRefuseIt()
            throws Exception
    {
        first.onNext("PUT", 3, problem("storage-unavailable", 503, true));
        second.onNext("PUT", 3, problem("overloaded", 503, true));
        instantiate(exchange(manager, 5, false));
        assertThat(first.requests("PUT")).hasSize(4);
    }

    @Test
    void testCreateExchangeDoesNotBlockAndFailsAfterTheRetryTime()
    {
        first.close();
        second.close();
        Exchange exchange = exchange(manager, 5, false);
        CompletableFuture<ExchangeSinkInstanceHandle> sink =
                exchange.instantiateSink(exchange.addSink(0), 0);
        assertThat(sink).isNotDone();
        assertThatThrownBy(() -> sink.get(20, SECONDS))
                .isInstanceOf(ExecutionException.class)
                .cause()
                .isInstanceOfSatisfying(TrinoException.class, e -> {
                    assertThat(e.getErrorCode())
                            .isEqualTo(StopoverErrorCode.STOPOVER_UNAVAILABLE.toErrorCode());
                    assertThat(e.getErrorCode().getType()).isEqualTo(ErrorType.EXTERNAL);
                    assertThat(e).hasMessageContaining(first.uri().toString().substring(0, 17));
                });
    }

    @Test
    void testFinalRefusalIsNotRetried()
    {
        first.onNext("PUT", problem("invalid-request", 400, false));
        second.onNext("PUT", problem("invalid-request", 400, false));
        Exchange exchange = exchange(manager, 5, false);
        assertThatThrownBy(() -> instantiate(exchange)).hasMessageContaining("invalid-request");
        assertThat(first.requests("PUT")).hasSize(1);
        assertThat(second.requests("PUT")).hasSize(1);
    }

    @Test
    void testSinksAreInstantiatedBeforeTheAnnouncementIsConfirmed()
            throws Exception
    {
        CountDownLatch go = new CountDownLatch(1);
        first.onNext("CONFIRM", (daemon, request, body) -> {
            go.await();
            request.close();
        });
        instantiate(exchange(manager, 5, false));
        assertThat(second.requests("CONFIRM")).isEmpty();
        go.countDown();
        await(() -> second.requests("CONFIRM").size() == 1);
    }

    @Test
    void testAnnouncementThatCannotBeConfirmedFailsTheExchange()
            throws Exception
    {
        first.onNext("CONFIRM", problem("exchange-conflict", 409, false));
        second.onNext("CONFIRM", problem("exchange-conflict", 409, false));
        Exchange exchange = exchange(manager, 5, false);
        instantiate(exchange);
        await(() -> exchange.instantiateSink(exchange.addSink(1), 0).isCompletedExceptionally());
        assertThatThrownBy(() -> instantiate(exchange))
                .hasMessageContaining("Cannot open exchange");
    }

    @Test
    void testEveryRequestAfterTheAnnouncementDescribesTheExchange()
            throws Exception
    {
        second.remembers = true;
        Exchange exchange = exchange(manager, 1, false);
        write(manager, exchange, 0, 0, List.of(Map.entry(0, "page")));
        exchange.allRequiredSinksFinished();
        assertThat(handles(exchange)).hasSize(1);
        exchange.close();
        await(() -> !store.closed.isEmpty());
        assertThat(first.undescribed).singleElement().asString().startsWith("PUT ");
        assertThat(second.undescribed).isEmpty();
    }

    @Test
    void testHandlesAreReplannedByAnotherDaemonAfterCorruption()
            throws Exception
    {
        Exchange exchange = exchange(manager, 1, false);
        write(manager, exchange, 0, 0, List.of(Map.entry(0, "page")));
        first.onNext("/handles", problem("data-corrupt", 502, true));
        exchange.allRequiredSinksFinished();
        assertThat(handles(exchange)).hasSize(1);
        assertThat(first.requests("/handles")).hasSize(1);
        assertThat(second.requests("/handles")).hasSize(1);
    }

    @Test
    void testCorruptionAtEveryDaemonIsAnExternalError()
            throws Exception
    {
        Exchange exchange = exchange(manager, 1, false);
        write(manager, exchange, 0, 0, List.of(Map.entry(0, "page")));
        first.onNext("/handles", 500, problem("data-corrupt", 502, true));
        second.onNext("/handles", 500, problem("data-corrupt", 502, true));
        exchange.allRequiredSinksFinished();
        assertThatThrownBy(() -> handles(exchange))
                .isInstanceOf(ExecutionException.class)
                .cause()
                .isInstanceOfSatisfying(TrinoException.class, e -> {
                    assertThat(e.getErrorCode())
                            .isEqualTo(StopoverErrorCode.STOPOVER_DATA_CORRUPT.toErrorCode());
                    assertThat(e.getErrorCode().getType()).isEqualTo(ErrorType.EXTERNAL);
                });
    }

    @Test
    void testFirstFinishedAttemptOfATaskIsRead()
            throws Exception
    {
        Exchange exchange = exchange(manager, 2, false);
        write(manager, exchange, 0, 1, List.of(Map.entry(0, "chosen")));
        write(manager, exchange, 0, 2, List.of(Map.entry(0, "too late")));
        exchange.noMoreSinks();
        exchange.allRequiredSinksFinished();
        List<ExchangeSourceHandle> handles = handles(exchange);
        assertThat(readAll(source(manager, handles, Map.of(0, 1)))).containsExactly("chosen");
    }

    @Test
    void testEachConsumerEnumeratesAllHandles()
            throws Exception
    {
        Exchange exchange = exchange(manager, 3, false);
        write(manager, exchange, 0, 0, List.of(Map.entry(0, "a"), Map.entry(2, "bc")));
        exchange.allRequiredSinksFinished();
        List<ExchangeSourceHandle> handles = handles(exchange);
        assertThat(handles).extracting(ExchangeSourceHandle::getPartitionId).containsExactly(0, 2);
        assertThat(handles).extracting(ExchangeSourceHandle::getDataSizeInBytes)
                .containsExactly(1L, 2L);
        assertThat(handles(exchange)).isEqualTo(handles);
        assertThat(first.requests("/handles")).hasSize(1);
    }

    @Test
    void testExchangeWithoutOutputHasNoHandles()
            throws Exception
    {
        Exchange exchange = exchange(manager, 3, false);
        write(manager, exchange, 0, 0, List.of());
        exchange.allRequiredSinksFinished();
        ExchangeSourceHandleBatch batch = exchange.getSourceHandles().getNextBatch()
                .get(10, SECONDS);
        assertThat(batch.handles()).isEmpty();
        assertThat(batch.lastBatch()).isTrue();
    }

    @Test
    void testManyHandlesAreSplitIntoBatches()
            throws Exception
    {
        int count = 2 * HandleBatches.BATCH_SIZE + 1;
        first.pagesPerHandle = 1;
        Exchange exchange = exchange(manager, 1, false);
        List<Map.Entry<Integer, String>> pages = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            pages.add(Map.entry(0, "x"));
        }
        write(manager, exchange, 0, 0, pages);
        exchange.allRequiredSinksFinished();
        ExchangeSourceHandleSource batches = exchange.getSourceHandles();
        assertThat(batches.getNextBatch().get(10, SECONDS).lastBatch()).isFalse();
        assertThat(batches.getNextBatch().get(10, SECONDS).handles())
                .hasSize(HandleBatches.BATCH_SIZE);
        ExchangeSourceHandleBatch last = batches.getNextBatch().get(10, SECONDS);
        assertThat(last.handles()).hasSize(1);
        assertThat(last.lastBatch()).isTrue();
    }

    @Test
    void testTruncatedHandleListIsRequestedAgain()
            throws Exception
    {
        Exchange exchange = exchange(manager, 3, false);
        write(manager, exchange, 0, 0, List.of(Map.entry(0, "a"), Map.entry(2, "bc")));
        first.onNext("/handles", FakeDaemon.truncate(40));
        second.onNext(
                "/handles",
                FakeDaemon.replaceResponse("{\"end\": true, \"handles\": 7}".getBytes(UTF_8)));
        exchange.allRequiredSinksFinished();
        assertThat(handles(exchange)).hasSize(2);
        // the first daemon broke the connection, so the request went to the second one again
        assertThat(first.requests("/handles")).hasSize(1);
        assertThat(second.requests("/handles")).hasSize(2);
    }

    @Test
    void testUncommittedAttemptFailsTheQuery()
    {
        Exchange exchange = exchange(manager, 3, false);
        exchange.sinkFinished(exchange.addSink(0), 0);
        assertThatThrownBy(() -> {
            instantiate(exchange);
            exchange.allRequiredSinksFinished();
            handles(exchange);
        }).cause().isInstanceOfSatisfying(TrinoException.class, e ->
                assertThat(e.getErrorCode())
                        .isEqualTo(StopoverErrorCode.STOPOVER_DATA_LOST.toErrorCode()));
    }

    @Test
    void testCancelledBatchIsNotSkipped()
            throws Exception
    {
        CountDownLatch go = new CountDownLatch(1);
        Exchange exchange = exchange(manager, 3, false);
        write(manager, exchange, 0, 0, List.of(Map.entry(0, "a"), Map.entry(2, "bc")));
        first.onNext("/handles", (daemon, request, body) -> {
            go.await();
            request.close();
        });
        exchange.allRequiredSinksFinished();
        ExchangeSourceHandleSource batches = exchange.getSourceHandles();
        assertThat(batches.getNextBatch().cancel(true)).isTrue();
        go.countDown();
        assertThat(batches.getNextBatch().get(10, SECONDS).handles()).hasSize(2);
        assertThat(handles(exchange)).hasSize(2);
    }

    @Test
    void testCancelledInstantiateSinkDoesNotAffectOthers()
            throws Exception
    {
        CountDownLatch go = new CountDownLatch(1);
        first.onNext("PUT", (daemon, request, body) -> {
            go.await();
            request.close();
        });
        Exchange exchange = exchange(manager, 3, false);
        ExchangeSinkHandle sink = exchange.addSink(0);
        assertThat(exchange.instantiateSink(sink, 0).cancel(true)).isTrue();
        CompletableFuture<ExchangeSinkInstanceHandle> other = exchange.instantiateSink(sink, 0);
        go.countDown();
        assertThat(other.get(10, SECONDS)).isInstanceOf(StopoverSinkInstanceHandle.class);
    }

    @Test
    void testLeaseIsRenewedUntilCloseRemovesTheExchange()
            throws Exception
    {
        first.leaseSeconds = 3;
        second.leaseSeconds = 3;
        Exchange exchange = exchange(manager, 3, false);
        String name = instantiate(exchange).exchange();
        await(() -> first.requests("PUT /v1/exchanges/" + name).size() >= 2);
        first.onNext("DELETE", 2, problem("storage-unavailable", 503, true));
        second.onNext("DELETE", FakeDaemon.loseResponse());
        exchange.close();
        exchange.close();
        await(() -> store.closed.size() == 2);
        int renewals = first.requests("PUT").size();
        SECONDS.sleep(2);
        assertThat(first.requests("PUT")).hasSize(renewals);
        assertThat(first.requests("DELETE")).hasSize(3);
        assertThat(second.requests("DELETE")).hasSize(1);
    }

    /**
     * A frozen daemon reads an announcement when another one has closed the exchange already, and
     * would open it again: it is told of the close until it answers.
     */
    @Test
    void testExchangeIsAlsoClosedWhereItsAnnouncementWasNotAnswered()
            throws Exception
    {
        first.onNext("PUT", FakeDaemon.loseResponse());
        Exchange exchange = exchange(manager, 3, false);
        instantiate(exchange);
        await(() -> second.requests("CONFIRM").size() == 1);
        first.onNext("DELETE", 2, problem("storage-unavailable", 503, true));
        exchange.close();
        await(() -> first.requests("DELETE").size() == 3);
        assertThat(second.requests("DELETE")).hasSize(1);
        SECONDS.sleep(1);
        assertThat(first.requests("DELETE")).hasSize(3);
    }

    @Test
    void testExchangeIsClosedOnceWhereItWasAnnounced()
            throws Exception
    {
        first.onNext("PUT", problem("draining", 503, true));
        Exchange exchange = exchange(manager, 3, false);
        instantiate(exchange);
        await(() -> second.requests("CONFIRM").size() == 1);
        exchange.close();
        await(() -> second.requests("DELETE").size() == 1);
        SECONDS.sleep(2);
        assertThat(first.requests("DELETE")).isEmpty();
        assertThat(second.requests("DELETE")).hasSize(1);
    }

    @Test
    void testRenewalDoesNotRecreateACollectedExchange()
            throws Exception
    {
        first.leaseSeconds = 3;
        Exchange exchange = exchange(manager, 3, false);
        String name = instantiate(exchange).exchange();
        await(() -> first.requests("CONFIRM").size() == 1);
        store.exchanges.remove(name);
        int before = first.requests("PUT").size();
        await(() -> first.requests("PUT").size() > before);
        assertThat(store.exchanges).doesNotContainKey(name);
        exchange.close();
    }

    @Test
    void testCloseDoesNotThrowAndFailsPendingFutures()
    {
        first.close();
        second.close();
        Exchange exchange = exchange(manager, 3, false);
        CompletableFuture<ExchangeSinkInstanceHandle> sink =
                exchange.instantiateSink(exchange.addSink(0), 0);
        CompletableFuture<ExchangeSourceHandleBatch> batch = exchange.getSourceHandles()
                .getNextBatch();
        exchange.close();
        assertThatThrownBy(() -> sink.get(10, SECONDS)).hasMessageContaining("closed");
        assertThatThrownBy(() -> batch.get(10, SECONDS)).hasMessageContaining("closed");
    }

    @Test
    void testTokenFileIsRereadWhenTheTokenIsRejected()
            throws Exception
    {
        Path file = Files.createTempFile("stopover", "token");
        try {
            Files.writeString(file, "old\n");
            first.token = "old";
            ExchangeManager withToken =
                    manager(Map.of("stopover.token-file", file.toString()), first);
            instantiate(exchange(withToken, 1, false));
            first.token = "new";
            Files.writeString(file, "new\n");
            instantiate(exchange(withToken, 1, false));
            first.token = "unknown";
            assertThatThrownBy(() -> instantiate(exchange(withToken, 1, false)))
                    .hasMessageContaining("unauthorized");
            first.token = "new";
            withToken.shutdown();
        }
        finally {
            Files.delete(file);
        }
    }

    @Test
    void testExchangeKeepsTheEnginesId()
    {
        assertThat(exchange(manager, 1, false).getId()).isEqualTo(EXCHANGE_ID);
    }

    @Test
    void testRenewalAnsweredWithGoneFailsTheExchange()
            throws Exception
    {
        first.leaseSeconds = 3;
        second.leaseSeconds = 3;
        Exchange exchange = exchange(manager, 3, false);
        String name = instantiate(exchange).exchange();
        CompletableFuture<ExchangeSourceHandleBatch> batch = exchange.getSourceHandles()
                .getNextBatch();
        store.closed.add(name);
        store.exchanges.remove(name);
        assertClosed(batch);
        assertClosed(exchange.instantiateSink(exchange.addSink(1), 0));
        exchange.allRequiredSinksFinished();
        assertClosed(exchange.getSourceHandles().getNextBatch());
        exchange.close();
    }

    /** The failed renewal is followed by another one, long before the next is due by the lease. */
    @Test
    void testRenewalIsRetriedSoonAfterAnyFailure()
            throws Exception
    {
        AtomicInteger calls = new AtomicInteger();
        Supplier<Backoff> backoffs = () -> {
            // the third call, after the announcement and its confirmation, is a renewal
            if (calls.incrementAndGet() == 3) {
                throw new OutOfMemoryError("Cannot reserve direct buffer memory");
            }
            return Testing.backoff();
        };
        first.leaseSeconds = 30;
        Services services = Testing.services(first);
        StopoverExchange exchange = new StopoverExchange(
                settings(Optional.empty()), backoffs, services, Span.getInvalid());
        exchange.start(() -> {}, () -> {});
        instantiate(exchange);
        SECONDS.sleep(10);
        await(() -> calls.get() >= 3);
        long failed = System.nanoTime();
        await(() -> first.requests("PUT").size() >= 2);
        assertThat(System.nanoTime() - failed).isLessThan(SECONDS.toNanos(8));
        exchange.close();
    }

    @Test
    void testErrorWhileAnnouncingFailsAllFutures()
    {
        StopoverExchange exchange = new StopoverExchange(
                settings(Optional.empty()),
                () -> {
                    throw new OutOfMemoryError("Cannot reserve direct buffer memory");
                },
                Testing.services(first),
                Span.getInvalid());
        CompletableFuture<?> sink = exchange.instantiateSink(exchange.addSink(0), 0);
        CompletableFuture<?> batch = exchange.getSourceHandles().getNextBatch();
        exchange.start(() -> {}, () -> {});
        assertThatThrownBy(() -> sink.get(10, SECONDS)).hasMessageContaining("direct buffer");
        assertThatThrownBy(() -> batch.get(10, SECONDS)).hasMessageContaining("direct buffer");
        exchange.close();
    }

    @Test
    void testErrorWhilePlanningFailsTheHandles()
            throws Exception
    {
        AtomicBoolean fail = new AtomicBoolean();
        StopoverExchange exchange = new StopoverExchange(
                settings(Optional.empty()),
                () -> {
                    if (fail.get()) {
                        throw new OutOfMemoryError("Cannot reserve direct buffer memory");
                    }
                    return Testing.backoff();
                },
                Testing.services(first),
                Span.getInvalid());
        exchange.start(() -> {}, () -> {});
        instantiate(exchange);
        exchange.sinkFinished(exchange.addSink(0), 0);
        fail.set(true);
        exchange.allRequiredSinksFinished();
        assertThatThrownBy(() -> exchange.getSourceHandles().getNextBatch().get(10, SECONDS))
                .hasMessageContaining("direct buffer");
        exchange.close();
    }

    @Test
    void testThreadThatCannotStartFailsAllFutures()
    {
        Services services = Testing.services(
                new VirtualThreads(_ -> {
                    throw new OutOfMemoryError("unable to create native thread");
                }),
                first);
        AtomicBoolean removed = new AtomicBoolean();
        StopoverExchange exchange = new StopoverExchange(
                settings(Optional.empty()), Testing::backoff, services, Span.getInvalid());
        exchange.start(() -> removed.set(true), () -> {});
        assertThat(exchange.instantiateSink(exchange.addSink(0), 0)).isCompletedExceptionally();
        exchange.allRequiredSinksFinished();
        assertThat(exchange.getSourceHandles().getNextBatch()).isCompletedExceptionally();
        assertThat(removed).isTrue();
    }

    /** With retry-policy=QUERY the engine gives up after 60 s, without a cause. */
    @Test
    void testInstantiateSinkOfTheQueryPolicyFailsBeforeTheEngineGivesUp()
    {
        assertThat(StopoverExchangeManager.instantiateTimeout(
                new ExchangeId("direct-exchange-1-2")))
                .hasValueSatisfying(timeout ->
                        assertThat(timeout).isLessThan(new Duration(55, SECONDS)));
        assertThat(StopoverExchangeManager.instantiateTimeout(
                new ExchangeId("query-results-exchange-20261123_000000_00000_abcde"))).isPresent();
        assertThat(StopoverExchangeManager.instantiateTimeout(EXCHANGE_ID)).isEmpty();

        first.onNext("PUT", 100, (daemon, request, body) -> SECONDS.sleep(30));
        StopoverExchange exchange = new StopoverExchange(
                settings(Optional.of(new Duration(500, MILLISECONDS))),
                Testing::backoff,
                Testing.services(first),
                Span.getInvalid());
        exchange.start(() -> {}, () -> {});
        assertThatThrownBy(() -> exchange.instantiateSink(exchange.addSink(0), 0).get(5, SECONDS))
                .cause()
                .isInstanceOfSatisfying(TrinoException.class, e -> assertThat(e.getErrorCode())
                        .isEqualTo(StopoverErrorCode.STOPOVER_UNAVAILABLE.toErrorCode()))
                .hasMessageContaining(first.uri().toString());
        exchange.close();
    }

    /** From version 480 on Trino retains closed exchanges for their metrics. */
    @Test
    void testClosedExchangeRetainsNoHandles()
            throws Exception
    {
        Exchange exchange = exchange(manager, 1, false);
        write(manager, exchange, 0, 0, List.of(Map.entry(0, "page")));
        exchange.allRequiredSinksFinished();
        WeakReference<ExchangeSourceHandle> handle = new WeakReference<>(
                exchange.getSourceHandles().getNextBatch().get(10, SECONDS).handles().getFirst());
        exchange.close();
        await(() -> !first.requests("DELETE").isEmpty());
        await(() -> {
            System.gc();
            return handle.get() == null;
        });
        assertClosed(exchange.getSourceHandles().getNextBatch());
        assertThat(metric(((StopoverExchange) exchange).getMetrics(), "StopoverExchange.pages"))
                .isEqualTo(1);
    }

    @Test
    void testMetricsCountRequestsRetriesAndPlannedPages()
            throws Exception
    {
        first.onNext("PUT", problem("storage-unavailable", 503, true));
        second.onNext("PUT", problem("storage-unavailable", 503, true));
        Exchange exchange = exchange(manager, 1, false);
        write(manager, exchange, 0, 0, List.of(Map.entry(0, "page"), Map.entry(0, "other")));
        exchange.allRequiredSinksFinished();
        handles(exchange);
        await(() -> metric(((StopoverExchange) exchange).getMetrics(), "StopoverExchange.requests")
                >= 7);
        Metrics metrics = ((StopoverExchange) exchange).getMetrics();
        assertThat(metric(metrics, "StopoverExchange.requests"))
                .as("three announcements, a confirmation, two questions for what is in memory, "
                        + "one plan")
                .isEqualTo(7);
        assertThat(metric(metrics, "StopoverExchange.retries")).isEqualTo(2);
        assertThat(metric(metrics, "StopoverExchange.pages")).isEqualTo(2);
        assertThat(metric(metrics, "StopoverExchange.bytes")).isEqualTo(9);
        exchange.close();
    }

    private static StopoverExchange.Settings settings(Optional<Duration> instantiateTimeout)
    {
        return new StopoverExchange.Settings(
                EXCHANGE_ID, "query-uuid", 3, false, 1 << 20, instantiateTimeout);
    }

    private static void assertClosed(CompletableFuture<?> future)
    {
        assertThatThrownBy(() -> future.get(20, SECONDS)).cause()
                .isInstanceOfSatisfying(TrinoException.class, e -> {
                    assertThat(e.getErrorCode())
                            .isEqualTo(StopoverErrorCode.STOPOVER_EXCHANGE_CLOSED.toErrorCode());
                    assertThat(e.getErrorCode().isFatal()).isTrue();
                });
    }

    private static StopoverSinkInstanceHandle instantiate(Exchange exchange)
            throws Exception
    {
        return (StopoverSinkInstanceHandle) exchange.instantiateSink(exchange.addSink(0), 0)
                .get(10, SECONDS);
    }

    private static void await(BooleanSupplier condition)
            throws InterruptedException
    {
        long deadline = System.nanoTime() + SECONDS.toNanos(20);
        while (!condition.getAsBoolean()) {
            assertThat(System.nanoTime()).isLessThan(deadline);
            Thread.sleep(10);
        }
    }
}
