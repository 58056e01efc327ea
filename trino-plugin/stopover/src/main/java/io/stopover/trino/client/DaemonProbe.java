/*
 * Licensed under the Apache License, Version 2.0 (the "License");
 * you may not use this file except in compliance with the License.
 * You may obtain a copy of the License at
 *
 *     http://www.apache.org/licenses/LICENSE-2.0
 *
 * Unless required by applicable law or agreed to in writing, software
 * distributed under the License is distributed on an "AS IS" BASIS,
 * WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
 * See the License for the specific language governing permissions and
 * limitations under the License.
 */
package io.stopover.trino.client;

import com.google.inject.Inject;
import io.airlift.log.Logger;
import io.stopover.trino.StopoverConfig;
import io.stopover.trino.client.HttpTransport.Limits;
import org.apache.hc.client5.http.classic.methods.HttpGet;

import java.io.IOException;
import java.net.InetAddress;
import java.net.UnknownHostException;
import java.util.Optional;

import static java.util.Objects.requireNonNull;

/** Small requests that test whether a daemon is usable; each ends within the connect timeout. */
public final class DaemonProbe
{
    private static final Logger log = Logger.get(DaemonProbe.class);

    private final HttpTransport transport;
    private final Limits limits;

    @Inject
    public DaemonProbe(HttpTransport transport, StopoverConfig config)
    {
        this.transport = requireNonNull(transport, "transport is null");
        this.limits = new Limits(
                config.getConnectTimeout(),
                Optional.of(config.getConnectTimeout()),
                "stopover.connect-timeout");
    }

    /** Whether the daemon serves requests and accepts new sinks. */
    boolean isReady(Daemon daemon)
    {
        try {
            readiness(daemon);
            return true;
        }
        catch (IOException e) {
            log.debug(e, "%s is not ready", daemon);
            return false;
        }
    }

    /**
     * @throws ProblemException with the status 503 if the daemon is starting or draining, or if no
     *         exchange can be opened through it
     */
    Readiness readiness(Daemon daemon)
            throws IOException
    {
        return transport.execute(
                daemon,
                () -> new HttpGet(daemon.url("/readyz")),
                limits,
                new Cancellation(),
                response -> Readiness.of(DaemonClient.readJson(response)));
    }

    /**
     * Versions, limits and base directories of the daemon, for any valid token.
     *
     * @throws ProblemException if the daemon rejects the token
     */
    DaemonInfo info(Daemon daemon)
            throws IOException
    {
        return transport.execute(
                daemon,
                () -> new HttpGet(daemon.url("/v1/daemon")),
                limits,
                new Cancellation(),
                response -> DaemonInfo.of(DaemonClient.readJson(response)));
    }

    /** Looks up a host name within the connect timeout. */
    InetAddress[] resolve(String host)
            throws UnknownHostException
    {
        return transport.resolve(host);
    }

    /** The run of the daemon that answered last; empty before its first response. */
    Optional<String> run(Daemon daemon)
    {
        return transport.run(daemon);
    }
}
