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

import io.stopover.trino.wire.MalformedStreamException;

import java.io.IOException;

/**
 * What a failure means for the status of the daemon, and whether the same request may succeed later
 * or at another daemon. {@link FailoverPolicy} decides by kind only.
 */
public enum FailureKind
{
    /** Local: cancelled, paused or retries exhausted. Does not affect the daemon's status. */
    LOCAL,
    /** Connection refused: the machine answers, and no process listens on the port. */
    REFUSED,
    /** No connection: DNS, connect or TLS handshake timeout, no route. Nothing was sent. */
    UNREACHABLE,
    /** No response in time. The request may have taken effect. */
    TIMED_OUT,
    /** The connection broke, or something other than a daemon answered. */
    DISCONNECTED,
    /** The response violates the protocol, its checksums or its counts. */
    CORRUPT,
    /** The daemon is shutting down and accepts no new sinks, or is not up yet. */
    DRAINING,
    /** A problem that the daemon reports as retryable. */
    UNAVAILABLE,
    /** The daemon rejects the token or certificate, or its own certificate is not trusted. */
    UNAUTHORIZED,
    /** This daemon will reject the request again; another may accept it. */
    REJECTED,
    /** Every daemon would answer the same. */
    FINAL;

    static FailureKind of(IOException failure)
    {
        return switch (failure) {
            case IOException e when e instanceof NotRetryable -> LOCAL;
            case RequestFailedException e -> e.kind();
            case DaemonNotTrustedException _ -> UNAUTHORIZED;
            case ProblemException e -> of(e.problem());
            case MalformedStreamException _ -> CORRUPT;
            default -> DISCONNECTED;
        };
    }

    private static FailureKind of(Problem problem)
    {
        return switch (problem.slug()) {
            case "draining", "starting" -> DRAINING;
            case "unauthorized", "forbidden" -> UNAUTHORIZED;
            case "exchange-closed", "exchange-conflict", "sink-aborted", "sink-finished",
                    "too-much-stored" -> FINAL;
            case Problem.UNKNOWN -> problem.retryable() ? DISCONNECTED : REJECTED;
            default -> problem.retryable() ? UNAVAILABLE : REJECTED;
        };
    }

    /** Whether the daemon leaves rotation for its cooldown. */
    boolean startsCooldown()
    {
        return switch (this) {
            case REFUSED, UNREACHABLE, TIMED_OUT, DISCONNECTED, DRAINING, UNAUTHORIZED -> true;
            case LOCAL, CORRUPT, UNAVAILABLE, REJECTED, FINAL -> false;
        };
    }

    /** Whether the daemon may have executed the request although it failed. */
    boolean isOutcomeUnknown()
    {
        return switch (this) {
            case TIMED_OUT, DISCONNECTED, CORRUPT, UNAVAILABLE -> true;
            case LOCAL, REFUSED, UNREACHABLE, DRAINING, UNAUTHORIZED, REJECTED, FINAL -> false;
        };
    }
}
