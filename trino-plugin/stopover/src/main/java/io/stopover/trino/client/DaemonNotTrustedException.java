package io.stopover.trino.client;

import java.io.IOException;
import java.net.URI;

/** Plugin and daemon do not agree on TLS: one does not trust the other. */
public class DaemonNotTrustedException
        extends IOException
{
    public DaemonNotTrustedException(URI daemon, Exception cause)
    {
        super(("%s: the TLS handshake failed: %s; check stopover.tls.truststore-path, the names in "
                + "the daemon's certificate, and stopover.tls.keystore-path")
                .formatted(daemon, cause.getMessage()), cause);
    }
}
