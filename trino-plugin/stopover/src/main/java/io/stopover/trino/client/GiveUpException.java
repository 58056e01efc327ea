package io.stopover.trino.client;

import java.io.IOException;

/**
 * What failed has failed too often in this way: asking again, or another daemon, would not help.
 */
public final class GiveUpException
        extends IOException
        implements AnyDaemon.Final
{
    public GiveUpException(String message, IOException cause)
    {
        super(message + ": " + cause.getMessage(), cause);
    }
}
