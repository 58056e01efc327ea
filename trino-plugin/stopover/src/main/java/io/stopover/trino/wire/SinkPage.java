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
