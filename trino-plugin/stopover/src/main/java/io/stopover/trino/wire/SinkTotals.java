package io.stopover.trino.wire;

import java.nio.ByteBuffer;
import java.util.zip.CRC32C;

import static java.nio.ByteOrder.LITTLE_ENDIAN;

/**
 * What an attempt has sent so far, as {@code finish} tells it to the daemon: counts, and the
 * CRC-32C over the checksums of all pages in the order in which they were sent. Used by one thread
 * at a time.
 */
public final class SinkTotals
{
    private final CRC32C checksum = new CRC32C();
    private long batches;
    private long pages;
    private long bytes;

    public void add(PageBatch batch)
    {
        ByteBuffer crcs = ByteBuffer.allocate(batch.pages().size() * Integer.BYTES)
                .order(LITTLE_ENDIAN);
        batch.pages().forEach(page -> crcs.putInt(page.crc()));
        checksum.update(crcs.flip());
        batches++;
        pages += batch.pages().size();
        bytes += batch.pageBytes();
    }

    public long batches()
    {
        return batches;
    }

    public long pages()
    {
        return pages;
    }

    public long bytes()
    {
        return bytes;
    }

    public long checksum()
    {
        return checksum.getValue();
    }
}
