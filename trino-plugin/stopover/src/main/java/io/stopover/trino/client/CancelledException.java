package io.stopover.trino.client;

import java.io.IOException;

/** The caller does not want the answer any more. */
public final class CancelledException
        extends IOException
{
    public CancelledException()
    {
        super("cancelled");
    }
}
