package io.stopover.trino.client;

import java.io.IOException;
import java.net.URI;

/** The daemon that held an unfinished attempt is gone, and the attempt with it. */
public final class DaemonGoneException
        extends IOException
{
    DaemonGoneException(SinkId sink, URI daemon, IOException cause)
    {
        super("%s, which held the unfinished %s, is gone".formatted(daemon, sink), cause);
    }
}
