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

/** The process that held the pages of an open sink no longer runs, and the pages are lost. */
public final class DaemonGoneException
        extends IOException
{
    DaemonGoneException(SinkId sink, Daemon daemon, IOException cause)
    {
        super("%s no longer runs and held the pages of the unfinished %s: %s"
                .formatted(daemon, sink, cause.getMessage()), cause);
    }
}
