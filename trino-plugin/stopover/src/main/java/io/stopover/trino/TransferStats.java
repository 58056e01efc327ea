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
    private final LongAdder homeBytes = new LongAdder();
    private final LongAdder otherZoneBytes = new LongAdder();
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

    void addBytesElsewhere(long home, long otherZone)
    {
        homeBytes.add(home);
        otherZoneBytes.add(otherZone);
        total.ifPresent(all -> all.addBytesElsewhere(home, otherZone));
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

    /** Bytes of small outputs sent to their home, or read from a daemon that had them in memory. */
    @Managed
    public long getHomeBytes()
    {
        return homeBytes.sum();
    }

    /** Bytes sent to, or read from, a daemon of another availability zone. */
    @Managed
    public long getOtherZoneBytes()
    {
        return otherZoneBytes.sum();
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
        ImmutableMap.Builder<String, Metric<?>> metrics = ImmutableMap.builder();
        metrics.put(prefix + ".bytes", new LongCount(getBytes()));
        metrics.put(prefix + ".pages", new LongCount(getPages()));
        metrics.put(prefix + ".requests", new LongCount(getRequests()));
        metrics.put(prefix + ".retries", new LongCount(getRetries()));
        metrics.put(prefix + ".homeBytes", new LongCount(getHomeBytes()));
        metrics.put(prefix + ".otherZoneBytes", new LongCount(getOtherZoneBytes()));
        metrics.put(prefix + ".blockedMillis", new LongCount(getBlockedMillis()));
        return new Metrics(metrics.buildOrThrow());
    }
}
