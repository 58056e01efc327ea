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

import java.util.ArrayList;
import java.util.List;

/**
 * What a daemon that is ready reports about itself.
 *
 * @param unhealthy names and errors of base directories that cannot be used now; empty if the
 *        daemon does not show them to this client
 */
record Readiness(List<String> unhealthy)
{
    static Readiness of(JsonMap json)
            throws MalformedJsonException
    {
        List<String> unhealthy = new ArrayList<>();
        if (!json.has("base_directories")) {
            return new Readiness(unhealthy);
        }
        for (JsonMap base : json.objects("base_directories")) {
            if (base.has("error")) {
                unhealthy.add("%s (%s)".formatted(base.string("name"), base.string("error")));
            }
        }
        return new Readiness(unhealthy);
    }
}
