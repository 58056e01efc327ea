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

import io.stopover.trino.client.NotRetryable;

import java.io.IOException;

import static io.stopover.trino.wire.Counts.count;

/** The reader released its connection because the consumer was too slow; it resumes later. */
final class ReadPausedException
        extends IOException
        implements NotRetryable
{
    private final int pageSize;

    ReadPausedException(int pageSize)
    {
        super("paused: no buffer space for a page of %s".formatted(count(pageSize, "byte")));
        this.pageSize = pageSize;
    }

    /** Size of the page that did not fit. */
    int pageSize()
    {
        return pageSize;
    }
}
