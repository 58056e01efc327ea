package io.stopover.trino.client;

import java.io.IOException;
import java.net.URI;

/** No connection could be made: nothing was sent. */
public final class DaemonUnreachableException
        extends IOException
{
    public DaemonUnreachableException(URI daemon, IOException cause)
    {
        super("cannot connect to %s: %s".formatted(daemon, cause.getMessage()), cause);
    }
}
