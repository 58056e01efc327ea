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

import java.io.IOException;

import static java.util.Objects.requireNonNull;

/** No connection, no response, or a connection that broke: no daemon answered the request. */
public final class RequestFailedException
        extends IOException
{
    private final FailureKind kind;

    RequestFailedException(RequestInfo request, FailureKind kind, Exception cause)
    {
        super(request.failure(summary(kind, cause), advice(request, kind)), cause);
        this.kind = requireNonNull(kind, "kind is null");
    }

    FailureKind kind()
    {
        return kind;
    }

    boolean isUnsent()
    {
        return kind == FailureKind.REFUSED || kind == FailureKind.UNREACHABLE;
    }

    private static String summary(FailureKind kind, Exception cause)
    {
        String detail = cause.getMessage() == null ? cause.toString() : cause.getMessage();
        return switch (kind) {
            case REFUSED -> "connection refused";
            case UNREACHABLE -> "cannot connect: " + detail;
            case TIMED_OUT -> "no response in time: " + detail;
            default -> "the connection broke: " + detail;
        };
    }

    private static String advice(RequestInfo request, FailureKind kind)
    {
        return switch (kind) {
            case REFUSED -> "start the daemon, or correct stopover.uris";
            case UNREACHABLE -> "check that this node can resolve and reach %s, or correct"
                    .formatted(request.daemon().uri().getAuthority()) + " stopover.uris";
            case TIMED_OUT -> "check the daemon's log and %s/readyz, or raise %s"
                    .formatted(request.daemon().uri(), request.timeoutProperty());
            default -> "check the daemon's log for a restart, and any proxy in between";
        };
    }
}
