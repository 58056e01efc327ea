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

import io.stopover.trino.client.DaemonGoneException;
import io.stopover.trino.client.DaemonNotTrustedException;
import io.stopover.trino.client.ProblemException;
import io.stopover.trino.client.RetriesExhaustedException;
import io.stopover.trino.wire.MalformedStreamException;
import io.trino.spi.ErrorCodeSupplier;
import io.trino.spi.StandardErrorCode;
import io.trino.spi.TrinoException;

import java.io.IOException;
import java.util.Arrays;
import java.util.Optional;

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

/** The only place that maps failures to Trino's error codes. */
final class Failures
{
    /**
     * Trino's own code for lost exchange data, by name because only versions after 483 have it:
     * they retry a task that reports it once.
     */
    private static final ErrorCodeSupplier DATA_LOST =
            standardErrorCode("EXCHANGE_DATA_UNRECOVERABLE").orElse(STOPOVER_DATA_LOST);

    private Failures() {}

    static TrinoException toTrino(String action, Throwable failure)
    {
        if (failure instanceof TrinoException e) {
            return e;
        }
        StopoverErrorCode code = code(failure);
        String reason = failure instanceof IOException ? failure.getMessage() : failure.toString();
        return new TrinoException(
                code == STOPOVER_DATA_LOST ? DATA_LOST : code,
                "%s: %s".formatted(action, reason),
                failure);
    }

    static Optional<ErrorCodeSupplier> standardErrorCode(String name)
    {
        return Arrays.stream(StandardErrorCode.values())
                .filter(code -> code.name().equals(name))
                .map(ErrorCodeSupplier.class::cast)
                .findFirst();
    }

    /** Whether the exchange is permanently closed. */
    static boolean isExchangeClosed(Throwable failure)
    {
        return code(failure) == STOPOVER_EXCHANGE_CLOSED;
    }

    static StopoverErrorCode code(Throwable failure)
    {
        return switch (failure) {
            case ProblemException e -> code(e.problem().slug());
            case RetriesExhaustedException e -> code(e.getCause());
            case DaemonGoneException _ -> STOPOVER_SINK_LOST;
            case DaemonNotTrustedException _ -> STOPOVER_UNAUTHORIZED;
            case MalformedStreamException _ -> STOPOVER_DATA_CORRUPT;
            case IOException _ -> STOPOVER_UNAVAILABLE;
            default -> STOPOVER_INTERNAL_ERROR;
        };
    }

    private static StopoverErrorCode code(String slug)
    {
        return switch (slug) {
            case "sink-not-found", "sink-failed", "sink-aborted", "batch-out-of-order" ->
                    STOPOVER_SINK_LOST;
            case "data-lost", "attempt-not-committed" -> STOPOVER_DATA_LOST;
            case "data-corrupt" -> STOPOVER_DATA_CORRUPT;
            case "exchange-not-found", "exchange-closed" -> STOPOVER_EXCHANGE_CLOSED;
            case "unauthorized", "forbidden" -> STOPOVER_UNAUTHORIZED;
            case "too-much-stored" -> STOPOVER_TOO_MUCH_STORED;
            case "page-too-large" -> STOPOVER_PAGE_TOO_LARGE;
            case "storage-unavailable", "unknown-base-directory", "starting", "draining",
                    "overloaded", "timeout", "internal" -> STOPOVER_UNAVAILABLE;
            default -> STOPOVER_PROTOCOL;
        };
    }
}
