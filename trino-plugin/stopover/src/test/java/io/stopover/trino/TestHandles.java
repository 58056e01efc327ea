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

import com.fasterxml.jackson.databind.ObjectMapper;
import io.airlift.json.ObjectMapperProvider;
import io.stopover.trino.client.Home;
import io.trino.spi.exchange.ExchangeId;
import org.junit.jupiter.api.Test;

import java.net.URI;
import java.util.List;
import java.util.Optional;

import static org.assertj.core.api.Assertions.assertThat;

/**
 * Handles survive the engine's JSON mapper, which has all auto-detection disabled, and contain no
 * redundant properties.
 */
class TestHandles
{
    private final ObjectMapper mapper = new ObjectMapperProvider().get();

    @Test
    void testSinkInstanceHandleSurvivesJsonRoundTrip()
            throws Exception
    {
        StopoverSinkInstanceHandle handle = new StopoverSinkInstanceHandle(
                "query-uuid", "ZGVzYw", 17, 3, 50, List.of(), Optional.empty());
        String json = mapper.writeValueAsString(handle);
        assertThat(mapper.readTree(json)).isEqualTo(mapper.readTree("""
                {"exchange": "query-uuid", "descriptor": "ZGVzYw", "task": 17, "attempt": 3,
                "partitions": 50, "homes": []}
                """));
        assertThat(mapper.readValue(json, StopoverSinkInstanceHandle.class)).isEqualTo(handle);
    }

    @Test
    void testSourceHandleSurvivesJsonRoundTrip()
            throws Exception
    {
        StopoverSourceHandle handle = new StopoverSourceHandle(
                new ExchangeId("exchange-1"),
                4,
                1L << 40,
                12,
                true,
                "aGFuZGxl",
                Optional.empty(),
                Optional.empty());
        String json = mapper.writeValueAsString(handle);
        assertThat(mapper.readTree(json)).isEqualTo(mapper.readTree("""
                {"exchangeId": "exchange-1", "partition": 4, "bytes": 1099511627776, "pages": 12,
                "ordered": true, "handle": "aGFuZGxl"}
                """));
        assertThat(mapper.readValue(json, StopoverSourceHandle.class)).isEqualTo(handle);
        assertThat(handle.getPartitionId()).isEqualTo(4);
        assertThat(handle.getDataSizeInBytes()).isEqualTo(1L << 40);
        assertThat(handle.getRetainedSizeInBytes()).isBetween(100L, 1000L);
    }

    @Test
    void testTraceContextAndHomesSurviveJsonRoundTrip()
            throws Exception
    {
        Optional<String> traceparent =
                Optional.of("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        Home home = new Home("0123456789abcdef", URI.create("http://10.0.0.12:7077"));
        StopoverSinkInstanceHandle sink = new StopoverSinkInstanceHandle(
                "query-uuid", "ZGVzYw", 1, 0, 5, List.of(home, home), traceparent);
        StopoverSourceHandle source = new StopoverSourceHandle(
                new ExchangeId("exchange-1"),
                4,
                10,
                1,
                false,
                "aGFuZGxl",
                Optional.of(home),
                traceparent);
        assertThat(mapper.readValue(
                mapper.writeValueAsString(sink), StopoverSinkInstanceHandle.class)).isEqualTo(sink);
        assertThat(mapper.readValue(
                mapper.writeValueAsString(source), StopoverSourceHandle.class)).isEqualTo(source);
    }
}
