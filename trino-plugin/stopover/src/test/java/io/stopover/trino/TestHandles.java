package io.stopover.trino;

import com.fasterxml.jackson.databind.ObjectMapper;
import io.airlift.json.ObjectMapperProvider;
import io.trino.spi.exchange.ExchangeId;
import org.junit.jupiter.api.Test;

import static org.assertj.core.api.Assertions.assertThat;

/**
 * Handles survive the engine's JSON mapper, which detects nothing by itself, and say nothing twice.
 */
class TestHandles
{
    private final ObjectMapper mapper = new ObjectMapperProvider().get();

    @Test
    void aSinkInstanceHandleComesBackFromJson()
            throws Exception
    {
        StopoverSinkInstanceHandle handle = new StopoverSinkInstanceHandle("query-uuid", 17, 3, 50);
        String json = mapper.writeValueAsString(handle);
        assertThat(mapper.readTree(json)).isEqualTo(mapper.readTree("""
                {"exchange": "query-uuid", "task": 17, "attempt": 3, "partitions": 50}
                """));
        assertThat(mapper.readValue(json, StopoverSinkInstanceHandle.class)).isEqualTo(handle);
    }

    @Test
    void aSourceHandleComesBackFromJson()
            throws Exception
    {
        StopoverSourceHandle handle = new StopoverSourceHandle(
                new ExchangeId("exchange-1"), 4, 1L << 40, 12, true, "aGFuZGxl");
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
}
