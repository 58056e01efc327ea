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

import static java.util.Objects.requireNonNull;

/**
 * Identifies one request in errors and logs.
 *
 * @param path includes the exchange, except for reads
 * @param id sent as {@code X-Request-Id}; the daemon logs it
 * @param node the Trino node that sent the request
 * @param timeoutProperty the property that limits the duration of the request
 */
public record RequestInfo(
        Daemon daemon, String method, String path, String id, String node, String timeoutProperty)
{
    public RequestInfo
    {
        requireNonNull(daemon, "daemon is null");
        requireNonNull(method, "method is null");
        requireNonNull(path, "path is null");
        requireNonNull(id, "id is null");
        requireNonNull(node, "node is null");
        requireNonNull(timeoutProperty, "timeoutProperty is null");
    }

    /** Formats an error message: what failed, where, and the remedy. */
    String failure(String what, String advice)
    {
        return "%s %s%s failed: %s (request %s from node %s)%s".formatted(
                method, daemon.url(path), address(), what, id, node,
                advice.isEmpty() ? "" : "; " + advice);
    }

    private String address()
    {
        return daemon.address().map(ip -> " (%s)".formatted(ip.getHostAddress())).orElse("");
    }
}
