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
 * Pages that travel in one request: sorted by partition, within a partition in the order in which
 * the sink added them. Immutable, so that it can be sent again unchanged. Headers and small pages
 * are gathered in a small buffer; large pages go to the stream from the array in which the engine
 * left them.
 */
public final class PageBatch
{
    static final int BUFFER_SIZE = 128 * 1024;
    private static final int DIRECT_WRITE_SIZE = 32 * 1024;

    private final List<SinkPage> pages;
    private final long frameBytes;
    private final long pageBytes;
    private final long retainedBytes;

    public PageBatch(List<SinkPage> pages)
    {
        checkArgument(!pages.isEmpty(), "a batch has at least one page");
        List<SinkPage> sorted = new ArrayList<>(pages);
        sorted.sort(Comparator.comparingInt(SinkPage::partition));
        this.pages = List.copyOf(sorted);
        this.pageBytes = pages.stream().mapToLong(page -> page.data().length()).sum();
        this.frameBytes = pageBytes + (long) pages.size() * PageFrame.HEADER_SIZE;
        this.retainedBytes = pages.stream().mapToLong(SinkPage::retainedSize).sum();
    }

    /** In the order in which they are sent. */
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
            if (data.length() >= DIRECT_WRITE_SIZE) {
                flush(buffer, out);
                out.write(data.byteArray(), data.byteArrayOffset(), data.length());
                continue;
            }
            if (buffer.remaining() < data.length()) {
                flush(buffer, out);
            }
            buffer.put(data.byteArray(), data.byteArrayOffset(), data.length());
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
