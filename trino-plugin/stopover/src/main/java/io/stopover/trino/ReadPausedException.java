package io.stopover.trino;

import io.stopover.trino.client.AnyDaemon;

import java.io.IOException;

/** The reader let its connection go because nobody took pages for a while; it goes on later. */
final class ReadPausedException
        extends IOException
        implements AnyDaemon.Final
{
    private final int pageSize;

    /** @param pageSize of the page for which there was no room */
    ReadPausedException(int pageSize)
    {
        super("paused");
        this.pageSize = pageSize;
    }

    int pageSize()
    {
        return pageSize;
    }
}
