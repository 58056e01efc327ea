package io.stopover.trino.client;

import java.io.IOException;

/** The caller does not want the answer any more. */
public final class CancelledException
        extends IOException
        implements AnyDaemon.Final
{
    public CancelledException()
    {
        super("cancelled");
    }
}
