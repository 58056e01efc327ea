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
 * A page on its way to a daemon, with the checksum that was computed when the engine handed it
 * over: whatever damages the bytes afterwards is seen by the daemon and by the reader.
 */
public record SinkPage(int partition, Slice data, int crc)
{
    /** What a page costs beside its bytes: this object, its slice, its place in a list. */
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
