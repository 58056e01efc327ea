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

import io.trino.spi.ErrorCode;
import io.trino.spi.ErrorCodeSupplier;
import io.trino.spi.ErrorType;

import static io.trino.spi.ErrorType.EXTERNAL;
import static io.trino.spi.ErrorType.INSUFFICIENT_RESOURCES;
import static io.trino.spi.ErrorType.INTERNAL_ERROR;
import static io.trino.spi.ErrorType.USER_ERROR;

/**
 * Error codes of the plugin. Trino retries a task, after a delay, unless the code is fatal: no
 * retry cures those, so they fail the query at once.
 */
public enum StopoverErrorCode
        implements ErrorCodeSupplier
{
    /** No daemon was reachable or able to serve the request until the retry time was used up. */
    STOPOVER_UNAVAILABLE(0, EXTERNAL, false),
    /** The pages of an uncommitted attempt are lost. The next attempt writes them again. */
    STOPOVER_SINK_LOST(1, EXTERNAL, false),
    /** Committed pages are missing from the base directories. */
    STOPOVER_DATA_LOST(2, EXTERNAL, true),
    /** Committed pages are damaged or incomplete, also after rereading. */
    STOPOVER_DATA_CORRUPT(3, EXTERNAL, false),
    /** A daemon rejects the request, for example because it exceeds a limit. */
    STOPOVER_PROTOCOL(4, EXTERNAL, false),
    /** The token or certificate is missing, wrong or insufficient, or the daemon is not trusted. */
    STOPOVER_UNAUTHORIZED(5, EXTERNAL, false),
    /** The exchange was closed, or its lease expired. */
    STOPOVER_EXCHANGE_CLOSED(6, EXTERNAL, true),
    /** A single row is larger than the maximum page size. */
    STOPOVER_PAGE_TOO_LARGE(7, USER_ERROR, true),
    /** A bug in the plugin, or the JVM ran out of a resource. */
    STOPOVER_INTERNAL_ERROR(8, INTERNAL_ERROR, false),
    /** The query has stored as much as the daemons permit. */
    STOPOVER_TOO_MUCH_STORED(9, INSUFFICIENT_RESOURCES, true);

    private static final int BASE = 0x0570_0000;

    private final ErrorCode errorCode;

    StopoverErrorCode(int code, ErrorType type, boolean fatal)
    {
        errorCode = new ErrorCode(code + BASE, name(), type, fatal);
    }

    @Override
    public ErrorCode toErrorCode()
    {
        return errorCode;
    }
}
