package io.stopover.trino.client;

import io.stopover.trino.wire.MalformedStreamException;

/** An answer that is no JSON, or lacks a member, or has one of another type. */
public final class MalformedJsonException
        extends MalformedStreamException
{
    public MalformedJsonException(String message)
    {
        super(message);
    }

    public MalformedJsonException(String message, Throwable cause)
    {
        super(message, cause);
    }
}
