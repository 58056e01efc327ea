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
import java.net.URI;

import static java.util.Objects.requireNonNull;

/** A daemon answered that it cannot do what was asked. */
public final class ProblemException
        extends IOException
{
    private final transient Problem problem;

    public ProblemException(URI daemon, Problem problem)
    {
        super("%s: %s (%s, status %s). %s".formatted(
                daemon, problem.title(), problem.slug(), problem.status(), problem.detail()));
        this.problem = requireNonNull(problem, "problem is null");
    }

    public Problem problem()
    {
        return problem;
    }
}
