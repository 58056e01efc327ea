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

import com.fasterxml.jackson.annotation.JsonCreator;
import com.fasterxml.jackson.annotation.JsonProperty;

import java.net.URI;

import static java.util.Objects.requireNonNull;

/**
 * A reference to a daemon that one node sends to another. It is a hint: a node uses it only if its
 * own configuration contains that daemon, and everything works without it.
 *
 * @param run the run of the daemon, the same by whichever address it is reached
 * @param uri an address of the daemon, for a node that has another run of it
 */
public record Home(@JsonProperty("run") String run, @JsonProperty("uri") URI uri)
{
    @JsonCreator
    public Home
    {
        requireNonNull(run, "run is null");
        requireNonNull(uri, "uri is null");
    }
}
