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

import java.io.IOException;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;

import static com.google.common.base.Preconditions.checkArgument;
import static java.nio.ByteOrder.LITTLE_ENDIAN;

/**
 * Pages sent in one request: sorted by partition and, within a partition, in the order in which the
 * sink added them. Immutable, so it can be resent unchanged.
 *
 * <p>Output is written in full buffers, so that frame headers do not become small TCP segments that
 * each wake the daemon. The part of a page that does not fit into the buffer is written directly
 * from the engine's array.
 */
public final class PageBatch
{
    static final int BUFFER_SIZE = 128 * 1024;

    private final List<SinkPage> pages;
    private final long frameBytes;
    private final long pageBytes;
    private final long retainedBytes;

    public PageBatch(List<SinkPage> pages)
    {
        checkArgument(!pages.isEmpty(), "a batch must contain at least one page");
        List<SinkPage> sorted = new ArrayList<>(pages);
        sorted.sort(Comparator.comparingInt(SinkPage::partition));
        this.pages = List.copyOf(sorted);
        this.pageBytes = pages.stream().mapToLong(page -> page.data().length()).sum();
        this.frameBytes = pageBytes + (long) pages.size() * PageFrame.HEADER_SIZE;
        this.retainedBytes = pages.stream().mapToLong(SinkPage::retainedSize).sum();
    }

    /** Pages in the order in which they are sent. */
    public List<SinkPage> pages()
    {
        return pages;
    }

    public long frameBytes()
    {
        return frameBytes;
    }

    public long pageBytes()
    {
        return pageBytes;
    }

    public long retainedBytes()
    {
        return retainedBytes;
    }

    public void writeTo(OutputStream out)
            throws IOException
    {
        ByteBuffer buffer = ByteBuffer.allocate((int) Math.min(BUFFER_SIZE, frameBytes))
                .order(LITTLE_ENDIAN);
        for (SinkPage page : pages) {
            if (buffer.remaining() < PageFrame.HEADER_SIZE) {
                flush(buffer, out);
            }
            Slice data = page.data();
            buffer.putInt(page.partition()).putInt(data.length()).putInt(page.crc());
            int offset = data.byteArrayOffset();
            int remaining = data.length();
            if (remaining > buffer.remaining()) {
                int first = buffer.remaining();
                buffer.put(data.byteArray(), offset, first);
                flush(buffer, out);
                offset += first;
                remaining -= first;
            }
            if (remaining > buffer.remaining()) {
                out.write(data.byteArray(), offset, remaining);
            }
            else {
                buffer.put(data.byteArray(), offset, remaining);
            }
        }
        flush(buffer, out);
    }

    private static void flush(ByteBuffer buffer, OutputStream out)
            throws IOException
    {
        out.write(buffer.array(), 0, buffer.position());
        buffer.clear();
    }
}
