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

/** The daemon answered with an error. */
public final class ProblemException
        extends IOException
{
    private final transient Problem problem;

    public ProblemException(RequestInfo request, Problem problem)
    {
        super(request.failure(
                "%s (%s, status %s). %s".formatted(
                        problem.title(), problem.slug(), problem.status(), problem.detail()),
                advice(problem)));
        this.problem = requireNonNull(problem, "problem is null");
    }

    public Problem problem()
    {
        return problem;
    }

    private static String advice(Problem problem)
    {
        return switch (problem.slug()) {
            case "unauthorized", "forbidden" ->
                    "check stopover.token, stopover.token-file and stopover.tls.keystore-path";
            case "not-found", "method-not-allowed", "unsupported-media-type", "invalid-request" ->
                    "if the daemon is older than this plugin, upgrade it: daemons first";
            case "exchange-not-found" ->
                    "check that all daemons in stopover.uris have the same base directories";
            case Problem.UNKNOWN ->
                    "check that stopover.uris names a daemon, and any proxy in between";
            // the detail of the other problems names the limit and the remedy
            default -> "";
        };
    }
}
