package io.stopover.trino.wire;

import java.io.IOException;

/**
 * Bytes came that do not fit the protocol, their checksum or their counts. Reading them again may
 * help.
 */
public class MalformedStreamException
        extends IOException
{
    public MalformedStreamException(String message)
    {
        super(message);
    }

    public MalformedStreamException(String message, Throwable cause)
    {
        super(message, cause);
    }
}
