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
import com.fasterxml.jackson.annotation.JsonProperty;
import io.stopover.trino.client.Home;
import io.trino.spi.exchange.ExchangeSinkInstanceHandle;

import java.util.List;
import java.util.Optional;

import static java.util.Objects.requireNonNull;

/**
 * One attempt of one task, as sent to a worker.
 *
 * @param exchange the globally unique id of the exchange at the daemons
 * @param descriptor what was announced: all that a daemon needs to know about the exchange
 * @param partitions number of output partitions
 * @param homes daemons to which a small attempt is written, the best first
 * @param traceparent W3C trace context of the exchange, if the query is traced
 */
public record StopoverSinkInstanceHandle(
        @JsonProperty("exchange") String exchange,
        @JsonProperty("descriptor") String descriptor,
        @JsonProperty("task") int task,
        @JsonProperty("attempt") int attempt,
        @JsonProperty("partitions") int partitions,
        @JsonProperty("homes") List<Home> homes,
        @JsonProperty("traceparent") Optional<String> traceparent)
        implements ExchangeSinkInstanceHandle
{
    @JsonCreator
    public StopoverSinkInstanceHandle
    {
        requireNonNull(exchange, "exchange is null");
        requireNonNull(descriptor, "descriptor is null");
        // Absent in handles of older plugin versions.
        homes = homes == null ? List.of() : List.copyOf(homes);
        traceparent = traceparent == null ? Optional.empty() : traceparent;
    }
}
