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

import io.stopover.trino.client.Daemon;
import io.stopover.trino.client.Problem;
import io.stopover.trino.client.ProblemException;
import io.stopover.trino.client.RequestInfo;
import io.trino.spi.ErrorCode;
import io.trino.spi.StandardErrorCode;
import org.junit.jupiter.api.Test;

import java.net.URI;
import java.util.Arrays;

import static io.stopover.trino.StopoverErrorCode.STOPOVER_DATA_LOST;
import static io.stopover.trino.StopoverErrorCode.STOPOVER_EXCHANGE_CLOSED;
import static io.stopover.trino.StopoverErrorCode.STOPOVER_INTERNAL_ERROR;
import static io.stopover.trino.StopoverErrorCode.STOPOVER_PAGE_TOO_LARGE;
import static io.stopover.trino.StopoverErrorCode.STOPOVER_SINK_LOST;
import static io.stopover.trino.StopoverErrorCode.STOPOVER_TOO_MUCH_STORED;
import static io.trino.spi.ErrorType.INTERNAL_ERROR;
import static org.assertj.core.api.Assertions.assertThat;

/** Failures that no retry cures are fatal, so Trino does not retry the task. */
class TestFailures
{
    @Test
    void testOnlyIncurableFailuresAreFatal()
    {
        assertThat(Arrays.stream(StopoverErrorCode.values())
                .filter(code -> code.toErrorCode().isFatal()))
                .containsExactly(
                        STOPOVER_DATA_LOST,
                        STOPOVER_EXCHANGE_CLOSED,
                        STOPOVER_PAGE_TOO_LARGE,
                        STOPOVER_TOO_MUCH_STORED);
        assertThat(toErrorCode("data-lost").isFatal()).isTrue();
        assertThat(toErrorCode("exchange-closed"))
                .isEqualTo(STOPOVER_EXCHANGE_CLOSED.toErrorCode());
        assertThat(toErrorCode("too-much-stored"))
                .isEqualTo(STOPOVER_TOO_MUCH_STORED.toErrorCode());
        assertThat(toErrorCode("sink-failed")).isEqualTo(STOPOVER_SINK_LOST.toErrorCode());
    }

    /** Versions after 483 have a code for lost data, with its own retry rule. */
    @Test
    void testLostDataUsesTheCodeOfTrinoIfThereIsOne()
    {
        assertThat(Failures.standardErrorCode("GENERIC_INTERNAL_ERROR"))
                .contains(StandardErrorCode.GENERIC_INTERNAL_ERROR);
        assertThat(Failures.standardErrorCode("NO_SUCH_CODE")).isEmpty();
        assertThat(toErrorCode("data-lost")).isEqualTo(
                Failures.standardErrorCode("EXCHANGE_DATA_UNRECOVERABLE")
                        .orElse(STOPOVER_DATA_LOST)
                        .toErrorCode());
    }

    @Test
    void testErrorsOfTheJvmAreInternal()
    {
        ErrorCode code = Failures.toTrino("Cannot write", new OutOfMemoryError("direct buffer"))
                .getErrorCode();
        assertThat(code).isEqualTo(STOPOVER_INTERNAL_ERROR.toErrorCode());
        assertThat(code.getType()).isEqualTo(INTERNAL_ERROR);
    }

    private static ErrorCode toErrorCode(String slug)
    {
        Problem problem = new Problem(slug, 500, "title", "detail", false);
        RequestInfo request = new RequestInfo(
                Daemon.of(URI.create("http://daemon:7077")),
                "POST",
                "/v1/read",
                "1",
                "node",
                "property");
        return Failures.toTrino("Cannot read", new ProblemException(request, problem))
                .getErrorCode();
    }
}
