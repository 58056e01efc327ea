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

import com.google.errorprone.annotations.concurrent.GuardedBy;
import io.airlift.log.Logger;
import io.opentelemetry.api.trace.Span;
import io.stopover.trino.client.Cancellation;
import io.stopover.trino.client.Daemon;
import io.stopover.trino.client.DescribedExchange;

import java.util.Iterator;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.Supplier;

import static java.util.Objects.requireNonNull;
import static java.util.concurrent.TimeUnit.SECONDS;

/**
 * Reports the chosen attempts to the daemon that will plan an exchange, while other tasks still
 * run, so that the daemon prefetches most of what the plan needs. Sends at most one request per
 * second and exchange, and none if all tasks finish within the first second. It is only a hint: a
 * failed request is not repeated.
 */
final class ChosenAttempts
{
    private static final Logger log = Logger.get(ChosenAttempts.class);
    static final long INTERVAL_NANOS = SECONDS.toNanos(1);
    /** Most attempts of one request: some 100 kB. */
    static final int MAX_BATCH = 10_000;

    private final Supplier<DescribedExchange> exchange;
    private final Services services;
    private final Span span;
    private final Cancellation cancellation = new Cancellation();
    @GuardedBy("this")
    private final Map<Integer, Integer> pending = new TreeMap<>();
    @GuardedBy("this")
    private boolean running;
    @GuardedBy("this")
    private boolean stopped;

    /** @param exchange supplies the descriptor too, once the exchange has been announced */
    ChosenAttempts(Supplier<DescribedExchange> exchange, Services services, Span span)
    {
        this.exchange = requireNonNull(exchange, "exchange is null");
        this.services = requireNonNull(services, "services is null");
        this.span = requireNonNull(span, "span is null");
    }

    /** Does not block. */
    void add(int task, int attempt)
    {
        if (shouldStart(task, attempt)) {
            services.threads().start(
                    Tracing.within(span, this::send),
                    t -> {
                        log.debug(t, "Cannot report the chosen attempts; it is only a hint");
                        stop();
                    });
        }
    }

    private synchronized boolean shouldStart(int task, int attempt)
    {
        if (stopped) {
            return false;
        }
        pending.put(task, attempt);
        boolean start = !running;
        running = true;
        return start;
    }

    private void send()
            throws InterruptedException
    {
        while (cancellation.pause(INTERVAL_NANOS)) {
            Map<Integer, Integer> batch = nextBatch();
            if (batch.isEmpty()) {
                return;
            }
            // it plans first
            Daemon daemon = services.failover().daemons().preferred();
            services.failover().tryOnce(daemon, _ -> {
                services.client().chosen(
                        daemon,
                        exchange.get(),
                        batch,
                        services.planner().askedBesides(daemon),
                        cancellation);
                return null;
            });
        }
    }

    /** If there is none, the thread ends. */
    private synchronized Map<Integer, Integer> nextBatch()
    {
        Map<Integer, Integer> batch = new TreeMap<>();
        Iterator<Map.Entry<Integer, Integer>> entries = pending.entrySet().iterator();
        while (entries.hasNext() && batch.size() < MAX_BATCH) {
            Map.Entry<Integer, Integer> entry = entries.next();
            batch.put(entry.getKey(), entry.getValue());
            entries.remove();
        }
        running = !batch.isEmpty();
        return batch;
    }

    /** Sends no more requests: the exchange is planned, or closed. */
    void stop()
    {
        synchronized (this) {
            stopped = true;
            pending.clear();
        }
        cancellation.cancel();
    }
}
