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

import org.weakref.jmx.Managed;
import org.weakref.jmx.Nested;

import java.util.EnumMap;
import java.util.Map;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.LongAdder;

import static io.stopover.trino.StopoverErrorCode.STOPOVER_DATA_CORRUPT;
import static io.stopover.trino.StopoverErrorCode.STOPOVER_DATA_LOST;
import static io.stopover.trino.StopoverErrorCode.STOPOVER_EXCHANGE_CLOSED;
import static io.stopover.trino.StopoverErrorCode.STOPOVER_INTERNAL_ERROR;
import static io.stopover.trino.StopoverErrorCode.STOPOVER_PAGE_TOO_LARGE;
import static io.stopover.trino.StopoverErrorCode.STOPOVER_PROTOCOL;
import static io.stopover.trino.StopoverErrorCode.STOPOVER_SINK_LOST;
import static io.stopover.trino.StopoverErrorCode.STOPOVER_TOO_MUCH_STORED;
import static io.stopover.trino.StopoverErrorCode.STOPOVER_UNAUTHORIZED;
import static io.stopover.trino.StopoverErrorCode.STOPOVER_UNAVAILABLE;

/** Totals of this node since its start, exported to JMX. */
public final class StopoverStats
{
    private final TransferStats exchanges = new TransferStats();
    private final TransferStats sinks = new TransferStats();
    private final TransferStats sources = new TransferStats();
    private final AtomicLong openExchanges = new AtomicLong();
    private final Map<StopoverErrorCode, LongAdder> failures =
            new EnumMap<>(StopoverErrorCode.class);

    public StopoverStats()
    {
        for (StopoverErrorCode code : StopoverErrorCode.values()) {
            failures.put(code, new LongAdder());
        }
    }

    void failed(StopoverErrorCode code)
    {
        failures.get(code).increment();
    }

    void exchangeOpened()
    {
        openExchanges.incrementAndGet();
    }

    void exchangeClosed()
    {
        openExchanges.decrementAndGet();
    }

    private long failures(StopoverErrorCode code)
    {
        return failures.get(code).sum();
    }

    @Managed
    @Nested
    public TransferStats getExchanges()
    {
        return exchanges;
    }

    @Managed
    @Nested
    public TransferStats getSinks()
    {
        return sinks;
    }

    @Managed
    @Nested
    public TransferStats getSources()
    {
        return sources;
    }

    /** Exchanges of this coordinator that the daemons have not removed yet. */
    @Managed
    public long getOpenExchanges()
    {
        return openExchanges.get();
    }

    @Managed
    public long getUnavailableFailures()
    {
        return failures(STOPOVER_UNAVAILABLE);
    }

    @Managed
    public long getSinkLostFailures()
    {
        return failures(STOPOVER_SINK_LOST);
    }

    @Managed
    public long getDataLostFailures()
    {
        return failures(STOPOVER_DATA_LOST);
    }

    @Managed
    public long getDataCorruptFailures()
    {
        return failures(STOPOVER_DATA_CORRUPT);
    }

    @Managed
    public long getProtocolFailures()
    {
        return failures(STOPOVER_PROTOCOL);
    }

    @Managed
    public long getUnauthorizedFailures()
    {
        return failures(STOPOVER_UNAUTHORIZED);
    }

    @Managed
    public long getExchangeClosedFailures()
    {
        return failures(STOPOVER_EXCHANGE_CLOSED);
    }

    @Managed
    public long getPageTooLargeFailures()
    {
        return failures(STOPOVER_PAGE_TOO_LARGE);
    }

    @Managed
    public long getTooMuchStoredFailures()
    {
        return failures(STOPOVER_TOO_MUCH_STORED);
    }

    @Managed
    public long getInternalErrorFailures()
    {
        return failures(STOPOVER_INTERNAL_ERROR);
    }
}
