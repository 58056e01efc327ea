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

import com.google.common.collect.ImmutableMap;
import io.trino.plugin.base.metrics.LongCount;
import io.trino.spi.metrics.Metric;
import io.trino.spi.metrics.Metrics;
import org.weakref.jmx.Managed;

import java.util.Map;
import java.util.Optional;
import java.util.concurrent.atomic.LongAdder;

import static java.util.Objects.requireNonNull;
import static java.util.concurrent.TimeUnit.NANOSECONDS;

/** Counters of one exchange, sink or source, or of all of them on this node. */
public final class TransferStats
{
    private final Optional<TransferStats> total;
    private final LongAdder bytes = new LongAdder();
    private final LongAdder pages = new LongAdder();
    private final LongAdder requests = new LongAdder();
    private final LongAdder retries = new LongAdder();
    private final LongAdder blockedNanos = new LongAdder();

    TransferStats()
    {
        this.total = Optional.empty();
    }

    /** Everything counted here also counts in {@code total}. */
    TransferStats(TransferStats total)
    {
        this.total = Optional.of(requireNonNull(total, "total is null"));
    }

    void addPages(long pageCount, long byteCount)
    {
        pages.add(pageCount);
        bytes.add(byteCount);
        total.ifPresent(all -> all.addPages(pageCount, byteCount));
    }

    void addRequests(long requestCount, long retryCount)
    {
        requests.add(requestCount);
        retries.add(retryCount);
        total.ifPresent(all -> all.addRequests(requestCount, retryCount));
    }

    void addBlocked(long nanos)
    {
        blockedNanos.add(nanos);
        total.ifPresent(all -> all.addBlocked(nanos));
    }

    @Managed
    public long getBytes()
    {
        return bytes.sum();
    }

    @Managed
    public long getPages()
    {
        return pages.sum();
    }

    @Managed
    public long getRequests()
    {
        return requests.sum();
    }

    @Managed
    public long getRetries()
    {
        return retries.sum();
    }

    /** Time during which the engine could not proceed because of a daemon. */
    @Managed
    public long getBlockedMillis()
    {
        return NANOSECONDS.toMillis(blockedNanos.sum());
    }

    /** As a metric type that every node of a cluster can deserialize. */
    Metrics toMetrics(String prefix)
    {
        Map<String, Metric<?>> metrics = ImmutableMap.of(
                prefix + ".bytes", new LongCount(getBytes()),
                prefix + ".pages", new LongCount(getPages()),
                prefix + ".requests", new LongCount(getRequests()),
                prefix + ".retries", new LongCount(getRetries()),
                prefix + ".blockedMillis", new LongCount(getBlockedMillis()));
        return new Metrics(metrics);
    }
}
