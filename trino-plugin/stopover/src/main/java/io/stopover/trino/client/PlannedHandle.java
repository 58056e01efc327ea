package io.stopover.trino.client;

import static java.util.Objects.requireNonNull;

/** A source handle as the daemon planned it; {@code handle} is opaque. */
public record PlannedHandle(String handle, int partition, long bytes, long pages)
{
    public PlannedHandle
    {
        requireNonNull(handle, "handle is null");
    }
}
