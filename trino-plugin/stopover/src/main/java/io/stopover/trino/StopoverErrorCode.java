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
import static io.trino.spi.ErrorType.USER_ERROR;

/**
 * How failures reach Trino. All but the last are external: Trino runs the task again, after a
 * delay.
 */
public enum StopoverErrorCode
        implements ErrorCodeSupplier
{
    /** No daemon could be reached, or none could do its work, for the whole time of retries. */
    STOPOVER_UNAVAILABLE(0, EXTERNAL),
    /**
     * The attempt's pages are lost before they were committed; another attempt writes them again.
     */
    STOPOVER_SINK_LOST(1, EXTERNAL),
    /** Committed pages are not there any more. Another attempt will not find them either. */
    STOPOVER_DATA_LOST(2, EXTERNAL),
    /** Committed pages were read damaged or incomplete, also when read again. */
    STOPOVER_DATA_CORRUPT(3, EXTERNAL),
    /** Plugin and daemon do not understand each other, or a limit of the daemon is in the way. */
    STOPOVER_PROTOCOL(4, EXTERNAL),
    /** The token or certificate is missing, wrong, or not enough, or the daemon is not trusted. */
    STOPOVER_UNAUTHORIZED(5, EXTERNAL),
    /** The exchange was closed, or its lease ran out. */
    STOPOVER_EXCHANGE_CLOSED(6, EXTERNAL),
    /** A single row is larger than a page may be. */
    STOPOVER_PAGE_TOO_LARGE(7, USER_ERROR);

    private static final int BASE = 0x0570_0000;

    private final ErrorCode errorCode;

    StopoverErrorCode(int code, ErrorType type)
    {
        errorCode = new ErrorCode(code + BASE, name(), type);
    }

    @Override
    public ErrorCode toErrorCode()
    {
        return errorCode;
    }
}
