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
package io.stopover.trino.wire;

import io.airlift.slice.Slice;

import static java.util.Objects.requireNonNull;

/**
 * A page to be sent, with the checksum computed when the engine handed it over. The daemon and the
 * reader both detect any later corruption.
 */
public record SinkPage(int partition, Slice data, int crc)
{
    /** Heap bytes per page beyond its data: this record, its slice, and its list entry. */
    private static final int OVERHEAD = 128;

    public SinkPage
    {
        requireNonNull(data, "data is null");
    }

    public static SinkPage of(int partition, Slice data)
    {
        return new SinkPage(partition, data, PageFrame.crc(partition, data));
    }

    public long retainedSize()
    {
        return OVERHEAD + data.getRetainedSize();
    }

    public int frameSize()
    {
        return PageFrame.HEADER_SIZE + data.length();
    }
}
