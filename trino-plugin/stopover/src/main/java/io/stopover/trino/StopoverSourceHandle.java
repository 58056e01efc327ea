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

import com.fasterxml.jackson.annotation.JsonCreator;
import com.fasterxml.jackson.annotation.JsonIgnore;
import com.fasterxml.jackson.annotation.JsonProperty;
import io.airlift.slice.SizeOf;
import io.stopover.trino.client.Home;
import io.trino.spi.exchange.ExchangeId;
import io.trino.spi.exchange.ExchangeSourceHandle;

import java.util.Optional;

import static io.airlift.slice.SizeOf.estimatedSizeOf;
import static io.airlift.slice.SizeOf.instanceSize;
import static java.util.Objects.requireNonNull;

/**
 * Pages of one output partition, as sent to the readers.
 *
 * @param exchangeId Trino's id of the exchange, for the output selector
 * @param ordered whether handles must be read one after another
 * @param handle the daemon's opaque handle: all that a read needs
 * @param holder a daemon that has the pages in memory
 * @param traceparent W3C trace context of the exchange, if the query is traced
 */
public record StopoverSourceHandle(
        @JsonProperty("exchangeId") ExchangeId exchangeId,
        @JsonProperty("partition") int partition,
        @JsonProperty("bytes") long bytes,
        @JsonProperty("pages") long pages,
        @JsonProperty("ordered") boolean ordered,
        @JsonProperty("handle") String handle,
        @JsonProperty("holder") Optional<Home> holder,
        @JsonProperty("traceparent") Optional<String> traceparent)
        implements ExchangeSourceHandle
{
    private static final int INSTANCE_SIZE = instanceSize(StopoverSourceHandle.class);

    @JsonCreator
    public StopoverSourceHandle
    {
        requireNonNull(exchangeId, "exchangeId is null");
        requireNonNull(handle, "handle is null");
        // Absent in handles of older plugin versions.
        holder = holder == null ? Optional.empty() : holder;
        traceparent = traceparent == null ? Optional.empty() : traceparent;
    }

    @JsonIgnore
    @Override
    public int getPartitionId()
    {
        return partition;
    }

    @JsonIgnore
    @Override
    public long getDataSizeInBytes()
    {
        return bytes;
    }

    @JsonIgnore
    @Override
    public long getRetainedSizeInBytes()
    {
        return INSTANCE_SIZE
                + exchangeId.getRetainedSizeInBytes()
                + estimatedSizeOf(handle)
                + SizeOf.sizeOf(holder, home -> estimatedSizeOf(home.run())
                        + estimatedSizeOf(home.uri().toString()))
                + SizeOf.sizeOf(traceparent, SizeOf::estimatedSizeOf);
    }
}
